//! Removes the keys that datagrepper (before 1.0) added to a message after it was signed.
//!
//! This does the same as `fix_datagrepper_message` in fedmsg's `fedmsg/crypto/utils.py`. It is for messages
//! from a recording or from datagrepper, never for messages from the bus.

use std::borrow::Cow;

use crate::JsonError;
use crate::canonical::parse;

const ADDED: [&[u8]; 2] = [b"source_name", b"source_version"];

/// Returns the text of a body without datagrepper's additions.
///
/// Only a body with both `source_name` and `source_version` is changed: these two keys and an empty `headers`
/// are removed, and `timestamp` becomes an integer. All other values are kept as they are written.
pub fn without_datagrepper(text: &str) -> Result<Cow<'_, str>, JsonError> {
    let document = parse(text)?;
    let Some(members) = document.members() else { return Ok(Cow::Borrowed(text)) };
    let has = |name: &[u8]| members.iter().any(|member| *member.key.decoded() == *name);
    if !ADDED.into_iter().all(has) {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len());
    for member in members {
        let (key, value) = (member.key.decoded(), document.value(member));
        if ADDED.contains(&&*key) || (*key == *b"headers" && is_empty(value)) {
            continue;
        }
        out.push(if out.is_empty() { '{' } else { ',' });
        out.push_str(document.key(member));
        out.push(':');
        match float(value) {
            // The format writes all digits of any number. Adding zero turns negative zero into zero.
            Some(number) if *key == *b"timestamp" => {
                out.push_str(&format!("{:.0}", number.trunc() + 0.0));
            }
            _ => out.push_str(&text[member.span.clone()]),
        }
    }
    out.push_str(if out.is_empty() { "{}" } else { "}" });
    Ok(Cow::Owned(out))
}

/// Returns true if Python treats a value of canonical JSON as false.
fn is_empty(value: &str) -> bool {
    matches!(value, "null" | "false" | "0" | "0.0" | "-0.0" | "\"\"" | "[]" | "{}")
}

/// Returns a value of canonical JSON as a float, if it is a finite float.
fn float(value: &str) -> Option<f64> {
    let number: f64 = value.parse().ok()?;
    (number.is_finite() && value.contains(['.', 'e'])).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(without_datagrepper(text).unwrap(), expected);
    }

    #[test]
    fn a_body_without_both_keys_stays_as_it_is() {
        for text in [
            r#"{"headers": {}, "timestamp": 1.0}"#,
            r#"{"source_name": "datanommer", "headers": {}, "timestamp": 1.0}"#,
            r#"{"source_version": "0.6", "headers": {}, "timestamp": 1.0}"#,
            "[]",
        ] {
            assert!(matches!(without_datagrepper(text), Ok(Cow::Borrowed(_))), "{text}");
        }
    }

    #[test]
    fn the_two_keys_are_removed() {
        check(r#"{"source_name":"datanommer","source_version":"0.6"}"#, "{}");
        check(
            r#"{"topic":"a","source_name":null,"msg":{"source_name": 1.50},"source_version":1}"#,
            r#"{"msg":{"source_name": 1.50},"topic":"a"}"#,
        );
    }

    fn check_added(text: &str, expected: &str) {
        let both = format!(r#"{{"source_name":"a","source_version":"b",{text}}}"#);
        check(&both, expected);
    }

    #[test]
    fn a_timestamp_becomes_whole() {
        check_added(r#""timestamp":1.0"#, r#"{"timestamp":1}"#);
        check_added(r#""timestamp":1504642719.99"#, r#"{"timestamp":1504642719}"#);
        check_added(r#""timestamp":-0.5"#, r#"{"timestamp":0}"#);
        check_added(r#""timestamp":1e22"#, r#"{"timestamp":10000000000000000000000}"#);
        check_added(r#""timestamp":7"#, r#"{"timestamp":7}"#);
        check_added(r#""timestamp":null"#, r#"{"timestamp":null}"#);
    }

    #[test]
    fn empty_headers_are_removed_and_others_stay() {
        check_added(r#""headers":{}"#, "{}");
        check_added(r#""headers":null"#, "{}");
        check_added(r#""headers":{"a":"b"}"#, r#"{"headers":{"a":"b"}}"#);
    }

    #[test]
    fn a_text_that_is_not_json_is_refused() {
        assert!(without_datagrepper("{").is_err());
    }
}
