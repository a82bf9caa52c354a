//! The limit on the digits of an integer.
//!
//! Python refuses to read an integer that has too many digits, so no playbook could read it. The fedmsg
//! source already refuses bodies with such an integer, so trusted sources refuse them too.

use loopabull_model::BodyError;

use crate::Rejection;
use crate::canonical::{MAX_INTEGER_DIGITS, canonical_json};

/// Refuses a JSON text that has an integer with too many digits. Floats are not limited.
pub(super) fn refuse_long_integers(text: &str) -> Result<(), Rejection> {
    if !has_long_run(text.as_bytes()) {
        return Ok(());
    }
    // The long run of digits may belong to a string or a float, which are allowed. So the text is parsed.
    let not_json = |error: crate::JsonError| BodyError::NotJson { reason: error.to_string() };
    canonical_json(text, crate::Credentials::Kept).map_err(not_json)?;
    Ok(())
}

/// Returns true if the text has more consecutive digits than an integer may have.
///
/// The function inspects only one byte in every `MAX_INTEGER_DIGITS + 1`. A run of digits that is too long
/// includes at least one inspected byte. So it is enough to count the digits around each inspected byte.
fn has_long_run(text: &[u8]) -> bool {
    let is_digit = |byte: &&u8| byte.is_ascii_digit();
    (MAX_INTEGER_DIGITS..text.len()).step_by(MAX_INTEGER_DIGITS + 1).any(|place| {
        let (before, after) = text.split_at(place);
        let after = after.iter().take_while(is_digit).count();
        after > 0 && after + before.iter().rev().take_while(is_digit).count() > MAX_INTEGER_DIGITS
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_of_digits_is_found_wherever_it_begins() {
        for before in [0, 1, 7, 4299, 4300, 4301, 9000] {
            for (digits, expected) in [(4300, false), (4301, true), (9000, true)] {
                let text = format!("{}{}x", "x".repeat(before), "1".repeat(digits));
                assert_eq!(has_long_run(text.as_bytes()), expected, "{before} {digits}");
                let text = text.trim_end_matches('x');
                assert_eq!(has_long_run(text.as_bytes()), expected, "{before} {digits}");
            }
        }
        assert!(!has_long_run(b"") && !has_long_run(b"1"));
    }

    #[test]
    fn only_integers_are_limited() {
        let digits = "1".repeat(4301);
        assert!(refuse_long_integers(&format!("[\"{digits}\",{digits}.5,1.{digits}]")).is_ok());
        for text in [digits.clone(), format!("{{\"a\":-{digits}}}")] {
            let rejection = refuse_long_integers(&text).unwrap_err();
            assert_eq!(rejection.reason(), "body-not-json");
            assert!(rejection.to_string().contains("more than 4300 digits"), "{rejection}");
        }
    }
}
