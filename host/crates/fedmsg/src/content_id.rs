//! The id of a message whose publisher gave it none: the hash of its content.

use loopabull_model::MessageId;
use sha2::{Digest, Sha256};

/// Returns the id of a message that has none of its own (old fedmsg, and other publishers), made of
/// the parts of its text. The same bytes have the same id, so that a message that arrives twice can
/// be recognized.
pub(crate) fn content_id(parts: &[&str]) -> MessageId {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.as_bytes());
    }
    let id = format!("sha256:{}", hex::encode(digest.finalize()));
    MessageId::try_from(id).expect("71 hexadecimal characters are an id")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_the_hash_of_all_parts_together() {
        let expected = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(content_id(&["abc"]).as_str(), expected);
        assert_eq!(content_id(&["a", "", "bc"]).as_str(), expected);
    }
}
