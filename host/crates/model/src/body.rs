//! The body of a message: JSON text that has been read to its end once.
//!
//! Owns the promise that the text is JSON that every task can be given: not too deep, and every
//! string a real Unicode string. Keeps the text as it came, so that numbers keep their digits.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// The deepest nesting of arrays and objects that is taken.
///
/// It is serde_json's own limit; Python's is about a thousand. No real bus message comes near.
pub const MAX_DEPTH: usize = 127;

/// JSON text, checked.
#[derive(Clone, Serialize)]
#[serde(transparent)]
pub struct Body(Box<RawValue>);

/// Why a text cannot be the body of a message.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("body is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("body has a lone surrogate at line {line}, column {column}")]
    LoneSurrogate { line: usize, column: usize },
    #[error("body has a key that is reserved: it starts with `{RESERVED}`")]
    ReservedKey,
    #[error("body is not JSON: {reason}")]
    NotJson { reason: String },
}

/// How serde_json marks numbers and raw text among themselves. It would take such a key from
/// outside for its own: read the text in its value as JSON, with a depth counted anew.
const RESERVED: &str = "$serde_json::private::";

impl Body {
    /// Checks a JSON text and keeps it.
    pub fn parse(text: &str) -> Result<Self, BodyError> {
        // `RawValue` alone only skims the text: it takes lone surrogates, which are no Unicode.
        if !is_harmless(text) && scan(text)? == Surrogates::Possible {
            serde_json::from_str::<Value>(text).map_err(BodyError::from)?;
        }
        serde_json::from_str(text).map(Self).map_err(BodyError::from)
    }

    /// Returns the JSON text, without space around it.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// Returns the body as a tree.
    pub fn to_value(&self) -> Value {
        serde_json::from_str(self.as_str()).expect("a body was read to its end when it was made")
    }
}

/// Whether a text has escapes that are halves of a character, each of which needs the other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Surrogates {
    None,
    Possible,
}

/// Tells at a glance that [`scan`] would find nothing in a text, if it is JSON: it has too few brackets
/// to be too deep, and no way to write a reserved key or half of a character. Loops without an early
/// end, whose sums fit into bytes, are what a compiler makes wide.
fn is_harmless(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_bracket = |&byte: &u8| u8::from(byte | 0x20 == b'{');
    let brackets = |part: &[u8]| usize::from(part.iter().map(is_bracket).sum::<u8>());
    let has_dollar = bytes.iter().fold(false, |found, &byte| found | (byte == b'$'));
    // `\u0024` is a dollar, and half of a character begins with `\ud`.
    let is_suspect = |w: &[u8]| {
        (w[0] == b'\\')
            & (w[1] == b'u')
            & ((w[2] | 0x20 == b'd') | ((w[4] == b'2') & (w[5] == b'4')))
    };
    let has_suspect = bytes.windows(6).fold(false, |found, w| found | is_suspect(w));
    !has_dollar && !has_suspect && bytes.chunks(255).map(brackets).sum::<usize>() <= MAX_DEPTH
}

/// Looks for what must not even reach serde_json: too deep nesting and reserved keys. Whether the
/// text is JSON is not asked here.
fn scan(text: &str) -> Result<Surrogates, BodyError> {
    let bytes = text.as_bytes();
    let mut surrogates = Surrogates::None;
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => {
                let start = at;
                while let Some(&byte) = bytes.get(at)
                    && byte != b'"'
                {
                    at += if byte == b'\\' { 2 } else { 1 };
                    if byte == b'\\'
                        && let [b'u', b'd' | b'D', ..] = bytes.get(at - 1..).unwrap_or_default()
                    {
                        surrogates = Surrogates::Possible;
                    }
                }
                at += 1;
                if is_reserved(text.get(start - 1..at).unwrap_or_default()) {
                    return Err(BodyError::ReservedKey);
                }
            }
            _ => (),
        }
        if depth > MAX_DEPTH {
            return Err(BodyError::TooDeep);
        }
    }
    Ok(surrogates)
}

/// Tells whether a string, with its quotes and escapes, starts as a reserved key does.
fn is_reserved(quoted: &str) -> bool {
    let raw = quoted.get(1..).unwrap_or_default();
    raw.starts_with(RESERVED)
        || (raw.contains('\\')
            && serde_json::from_str::<String>(quoted).is_ok_and(|text| text.starts_with(RESERVED)))
}

impl From<serde_json::Error> for BodyError {
    fn from(error: serde_json::Error) -> Self {
        // serde_json has no public codes; its texts for these two are covered by tests below.
        let reason = error.to_string();
        if reason.starts_with("recursion limit exceeded") {
            Self::TooDeep
        } else if reason.contains("surrogate") || reason.contains("unexpected end of hex escape") {
            Self::LoneSurrogate { line: error.line(), column: error.column() }
        } else {
            Self::NotJson { reason }
        }
    }
}

impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Body {}

impl fmt::Debug for Body {
    /// Tells the length only: bodies are not for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.as_str().len())
    }
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Self::parse(raw.get()).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_keep_their_digits() {
        let text = r#"{"big":123456789012345678901234567890,"float":1504642719.23539}"#;
        let body = Body::parse(text).unwrap();
        assert_eq!(body.as_str(), text);
        assert_eq!(serde_json::to_string(&body.to_value()).unwrap(), text);
    }

    #[test]
    fn lone_surrogates_are_refused_by_name() {
        for text in
            [r#""\ud800""#, r#""\ud800x""#, r#""\udc00""#, r#"{"\ud800":1}"#, r#""\ud800\u0041""#]
        {
            let error = Body::parse(text).unwrap_err();
            assert!(matches!(error, BodyError::LoneSurrogate { .. }), "{text}: {error}");
        }
    }

    #[test]
    fn surrogate_pairs_are_unicode() {
        assert_eq!(Body::parse(r#""\ud83d\ude00""#).unwrap().to_value(), "😀");
    }

    #[test]
    fn depth_is_limited_by_name() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(Body::parse(&nested(MAX_DEPTH)).is_ok());
        assert!(matches!(Body::parse(&nested(MAX_DEPTH + 1)), Err(BodyError::TooDeep)));
        assert!(matches!(Body::parse(&"[".repeat(1_000_000)), Err(BodyError::TooDeep)));
    }

    #[test]
    fn reserved_keys_are_refused_by_name() {
        let nested = |key: &str| format!(r#"{{"x":[{{"{key}":"{{\"evil\":[1,2]}}"}}]}}"#);
        for key in [
            "$serde_json::private::RawValue",
            "$serde_json::private::Number",
            r"\u0024serde_json::private::RawValue",
            r"$serde\u005fjson::private::Number",
        ] {
            let error = Body::parse(&nested(key)).unwrap_err();
            assert!(matches!(error, BodyError::ReservedKey), "{key}: {error}");
        }
        assert!(Body::parse(&nested("$serde_json")).is_ok());
        assert!(Body::parse(r#"["a\\", "b\"$serde_json::private::RawValue"]"#).is_ok());
    }

    #[test]
    fn brackets_in_strings_are_not_depth() {
        assert!(Body::parse(&format!("[\"{}\\\"\"]", "[".repeat(1000))).is_ok());
    }

    #[test]
    fn other_text_is_not_json() {
        for text in ["", "{", "NaN", "{'a':1}", "[1,]", "\u{feff}{}", "1 2"] {
            assert!(matches!(Body::parse(text), Err(BodyError::NotJson { .. })), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_body_is_always_a_tree(text in r#"([\[\]{}",:\\u0-9a-fD.eE+ -]|\\ud[89c]0[0f]|"[a-z\\u]*"|[\x00-\x20]){0,30}"#) {
            let is_tree = serde_json::from_str::<Value>(&text).is_ok();
            prop_assert_eq!(Body::parse(&text).is_ok(), is_tree);
        }
    }

    fn check_harmless(text: &str, expected: bool) {
        assert_eq!(is_harmless(text), expected, "{text}");
        assert!(!expected || scan(text).unwrap() == Surrogates::None, "{text}");
    }

    #[test]
    fn what_needs_no_second_look_is_seen_at_a_glance() {
        check_harmless("", true);
        check_harmless(r#"{"a":[1,"\u00fc \n"]}"#, true);
        check_harmless(r#"["\ud83d\ude00"]"#, false);
        check_harmless(r#""\uD800""#, false);
        check_harmless(r#""\u0024""#, false);
        check_harmless(r#""a$""#, false);
        check_harmless(&"[]".repeat(MAX_DEPTH), true);
        for brackets in [MAX_DEPTH + 1, 256, 1000, 100_000] {
            check_harmless(&"{".repeat(brackets), false);
        }
    }

    proptest! {
        #[test]
        fn what_is_seen_at_a_glance_is_so(text in r#""(\\u00[22ab4]{2}|\\u[dD]8[0-9]{2}|[$a]){0,3}"|(\[){120,135}(\]){120,135}"#) {
            let is_json = serde_json::from_str::<&RawValue>(&text).is_ok();
            let is_clean = matches!(scan(&text), Ok(Surrogates::None));
            prop_assert!(is_clean || !is_harmless(&text) || !is_json);
        }
    }

    #[test]
    fn a_body_inside_another_document_is_checked_too() {
        assert!(serde_json::from_str::<Body>(r#"["\ud800"]"#).is_err());
    }
}
