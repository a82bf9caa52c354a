//! The id of a message that was published without an id: the hash of its content.

use loopabull_model::MessageId;
use sha2::{Digest, Sha256};

/// Returns an id for a message that has none. Old versions of fedmsg and some other publishers send no id.
/// The id is a hash of `parts`, so equal texts have equal ids, and a message that arrives twice is
/// deduplicated.
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
