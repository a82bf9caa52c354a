//! Canonical JSON: the one JSON text of a value whose bytes a fedmsg signature covers.
//!
//! For every JSON text, the result is byte for byte the output of Python's `json.dumps(json.loads(text),
//! sort_keys=True, separators=(',', ':'))` (fedmsg, `fedmsg/encoding`). If Python raises an error, the result
//! is an error. serde_json cannot do this: Python accepts `NaN` and lone surrogates, keeps the last of two
//! equal keys, sorts keys by code point, and formats floats in its own way.
//!
//! The input is the body of a message. The parser turns the body into a [`Document`], from which
//! [`Envelope`](crate::Envelope) also reads the keys of the body. Each of the following modules uses only
//! later ones: `parser`, `document`, `member`, then `string` and `number`, then `reader`. The modules
//! `quoted`, `float`, `output` and `error` use no other module.

mod document;
mod error;
mod float;
mod member;
mod number;
mod output;
mod parser;
mod quoted;
mod reader;
mod string;

pub use document::Credentials;
pub(crate) use document::Document;
pub use error::{JsonError, MAX_INTEGER_DIGITS};
pub(crate) use member::Member;
pub(crate) use parser::parse;

/// Returns the canonical form of a JSON text.
///
/// The result is ASCII. The nesting depth is limited to [`MAX_DEPTH`](loopabull_model::MAX_DEPTH); Python's
/// limit is about 1000.
pub fn canonical_json(text: &str, credentials: Credentials) -> Result<String, JsonError> {
    Ok(parse(text)?.to_canonical(credentials).0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: &str) {
        let found = canonical_json(text, Credentials::Kept);
        assert_eq!(found.as_deref(), Ok(expected), "{text}");
    }

    fn check_refused(text: &str, expected: &str) {
        let error = canonical_json(text, Credentials::Kept).unwrap_err();
        assert_eq!(error.to_string(), expected, "{text}");
    }

    #[test]
    fn keys_are_ordered_by_code_point() {
        check(
            "{\"\u{1f600}\":1,\"\u{ffff}\":2,\"é\":3,\"z\":4,\"Z\":5}",
            r#"{"Z":5,"z":4,"\u00e9":3,"\uffff":2,"\ud83d\ude00":1}"#,
        );
        check(r#"{"\ue000":1,"\ud800":2,"\udfff":3}"#, r#"{"\ud800":2,"\udfff":3,"\ue000":1}"#);
        check(r#"{"b":1,"\u0061":2,"ab":3,"":4}"#, r#"{"":4,"a":2,"ab":3,"b":1}"#);
        check(r#"{"10":1,"9":2}"#, r#"{"10":1,"9":2}"#);
    }

    #[test]
    fn the_last_of_equal_keys_wins() {
        check(r#"{"a":1,"b":0,"a":2,"\u0061":{"x":3}}"#, r#"{"a":{"x":3},"b":0}"#);
        check(r#"[{"a":{"a":1,"a":2},"a":[]}]"#, r#"[{"a":[]}]"#);
        check(r#"{"a":1,"a":2}"#, r#"{"a":2}"#);
    }

    #[test]
    fn nested_objects_are_sorted() {
        check(
            r#"[{"b":{"d":[{"f":1,"e":2,"f":3}],"c":{"z":{},"y":[]}},"a":0},{"b":1,"a":2},{"a":1,"b":2}]"#,
            r#"[{"a":0,"b":{"c":{"y":[],"z":{}},"d":[{"e":2,"f":3}]}},{"a":2,"b":1},{"a":1,"b":2}]"#,
        );
        check(
            r#"{"a":{"c":{"b":1,"a":2},"c":{"d":1,"c":{"b":1,"a":2}},"b":[]}}"#,
            r#"{"a":{"b":[],"c":{"c":{"a":2,"b":1},"d":1}}}"#,
        );
    }

    #[test]
    fn space_is_removed() {
        check(" {\t\"a\" :\n[ 1 ,\r{ } , [ ] ] } ", r#"{"a":[1,{},[]]}"#);
        check(" null ", "null");
        check("[true,false]", "[true,false]");
    }

    #[test]
    fn only_the_outermost_credentials_are_left_out() {
        let text = r#"{"signature":1,"certificate":2,"msg":{"signature":3,"certificate":4}}"#;
        let expected = r#"{"msg":{"certificate":4,"signature":3}}"#;
        assert_eq!(canonical_json(text, Credentials::LeftOut).unwrap(), expected);
        assert_eq!(canonical_json(r#"{"signature":1}"#, Credentials::LeftOut).unwrap(), "{}");
        assert_eq!(
            canonical_json(r#"{"certificat\u0065":1}"#, Credentials::LeftOut).unwrap(),
            "{}"
        );
        assert_eq!(
            canonical_json(r#"[{"signature":1}]"#, Credentials::LeftOut).unwrap(),
            r#"[{"signature":1}]"#
        );
        check(r#"{"signature":1,"certificate":2}"#, r#"{"certificate":2,"signature":1}"#);
    }

    #[test]
    fn the_place_of_the_payload_is_returned() {
        let document = parse(r#"{"topic":"a","msg":{"b":1, "a":2},"i":1}"#).unwrap();
        let (canonical, msg) = document.to_canonical(Credentials::LeftOut);
        assert_eq!(&canonical[msg.unwrap()], r#"{"a":2,"b":1}"#);
        let document = parse(r#"{"i":{"msg":1}}"#).unwrap();
        assert_eq!(document.to_canonical(Credentials::LeftOut).1, None);
    }

    #[test]
    fn texts_that_python_refuses_are_refused() {
        check_refused("", "a value is missing at byte 0");
        check_refused("\u{feff}{}", "a value is missing at byte 0");
        check_refused("[1,]", "a value is missing at byte 3");
        check_refused(r#"{"a":1,}"#, "a key is missing at byte 7");
        check_refused(r#"{"a" 1}"#, "a colon is missing at byte 5");
        check_refused(r#"{1:1}"#, "a key is missing at byte 1");
        check_refused("[1 2]", "a comma or the end is missing at byte 3");
        check_refused("{} {}", "there is more than one value at byte 3");
        check_refused("[", "a value is missing at byte 1");
        check_refused("nul", "a value is missing at byte 0");
        check_refused("'a'", "a value is missing at byte 0");
    }

    #[test]
    fn depth_is_limited() {
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        check(&nested(127), &nested(127));
        check_refused(&nested(128), "text is nested deeper than 127 levels");
        check_refused(&"{\"a\":".repeat(1_000_000), "text is nested deeper than 127 levels");
    }

    #[test]
    fn many_members_are_sorted() {
        let members: Vec<_> = (0..100_000).rev().map(|n| format!("\"{n}\":0")).collect();
        let canonical = canonical_json(&format!("{{{}}}", members.join(",")), Credentials::Kept);
        assert!(canonical.unwrap().starts_with(r#"{"0":0,"1":0,"10":0,"#));
    }

    proptest! {
        #[test]
        fn canonical_json_never_panics(text in r#"[\[\]{}",:\\u0-9a-fD.eE+NaInity -]{0,60}|.{0,30}"#) {
            if let Ok(canonical) = canonical_json(&text, Credentials::Kept) {
                let again = canonical_json(&canonical, Credentials::Kept);
                prop_assert_eq!(again.as_ref(), Ok(&canonical));
            }
        }
    }
}
