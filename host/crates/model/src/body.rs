//! The body of a message: JSON text that passed all checks.
//!
//! The checks ensure that every task can read the text: the text is JSON, its nesting depth is limited, and
//! every string is Unicode. The text is kept as it is written, so that numbers keep all their digits.

mod error;
mod scan;

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

pub use error::{BodyError, MAX_DEPTH};
use scan::Surrogates;
use utoipa::ToSchema;

/// A JSON text that passed all checks.
#[derive(Clone, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = Value)]
pub struct Body(Box<RawValue>);

impl Body {
    /// Checks a JSON text and makes a body of it.
    pub fn parse(text: &str) -> Result<Self, BodyError> {
        Self::check(text)?;
        serde_json::from_str(text).map(Self).map_err(BodyError::from)
    }

    /// Makes a body of a raw value without parsing its text again. Checks everything except the JSON syntax.
    ///
    /// The raw value must come from serde_json's parser for JSON text, which has checked the syntax. The
    /// syntax of a raw value that was made from another format or from a `Value` is unchecked.
    pub fn from_raw(raw: Box<RawValue>) -> Result<Self, BodyError> {
        Self::check(raw.get())?;
        Ok(Self(raw))
    }

    /// Checks the depth, the surrogates and the reserved keys of a JSON text, but not its syntax. For callers
    /// that parse the text anyway, for example to read its members.
    pub fn check(text: &str) -> Result<(), BodyError> {
        // `RawValue` accepts lone surrogates, which are not Unicode; `Value` refuses them. So a text that may
        // have a lone surrogate is also parsed as a `Value`.
        if !scan::is_harmless(text) && scan::scan(text)?.surrogates == Surrogates::Possible {
            serde_json::from_str::<Value>(text).map_err(BodyError::from)?;
        }
        Ok(())
    }

    /// Returns the JSON text, without leading and trailing whitespace.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// Returns the body as a parsed tree.
    pub fn to_value(&self) -> Value {
        serde_json::from_str(self.as_str()).expect("every body is valid JSON")
    }

    /// Returns true if arrays and objects are nested more than `levels` deep.
    pub fn is_deeper_than(&self, levels: usize) -> bool {
        let text = self.as_str();
        // The nesting depth is at most the number of opening brackets. In most cases this number is so small
        // that no scan is needed.
        scan::openings(text) > levels && scan::scan(text).is_ok_and(|scan| scan.depth > levels)
    }
}

impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Body {}

impl fmt::Debug for Body {
    /// Writes only the length, because bodies must not be logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.as_str().len())
    }
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Serde may read a format other than JSON, and then nothing has checked the syntax of the raw value.
        // So the text is parsed again.
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
    fn a_body_knows_whether_it_is_deeper_than_a_limit() {
        let nested = |depth: usize| Body::parse(&("[".repeat(depth) + &"]".repeat(depth))).unwrap();
        assert!(nested(MAX_DEPTH).is_deeper_than(MAX_DEPTH - 1));
        assert!(!nested(MAX_DEPTH - 1).is_deeper_than(MAX_DEPTH - 1));
        let flat = Body::parse(&format!("[{}[]]", "[],".repeat(1000))).unwrap();
        assert!(flat.is_deeper_than(1) && !flat.is_deeper_than(2));
    }

    #[test]
    fn a_raw_value_is_checked_like_a_text() {
        let from_raw = |text: &str| Body::from_raw(serde_json::from_str(text).unwrap());
        assert_eq!(from_raw(" [1.50] ").unwrap().as_str(), "[1.50]");
        assert!(matches!(from_raw(r#""\ud800""#), Err(BodyError::LoneSurrogate { .. })));
        assert!(matches!(from_raw(r#""$serde_json::private::x""#), Err(BodyError::ReservedKey)));
        assert!(matches!(
            from_raw(&format!("{}{}", "[".repeat(128), "]".repeat(128))),
            Err(BodyError::TooDeep)
        ));
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

    #[test]
    fn a_body_inside_another_document_is_checked_too() {
        assert!(serde_json::from_str::<Body>(r#"["\ud800"]"#).is_err());
    }
}
