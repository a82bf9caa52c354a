//! The members of the outermost object of a JSON text, read in one pass.

use std::borrow::Cow;
use std::fmt;

use loopabull_model::Body;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::Rejection;

/// The members of an object. The values are kept as JSON text.
#[derive(Debug)]
pub(super) struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    /// Reads a text to its end. The text must be an object and pass all checks of a [`Body`].
    pub(super) fn read(text: &'a str) -> Result<Self, Rejection> {
        Body::check(text)?;
        serde_json::from_str(text).map_err(|error| match Body::parse(text) {
            Ok(_) => Rejection::shape(&error.to_string()),
            // The text is not JSON at all, so the error says this instead of "not an object".
            Err(error) => error.into(),
        })
    }

    /// Returns the value of a key. If the key is repeated, the last value is returned.
    pub(super) fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.0.iter().rev().find(|(found, _)| found == key).map(|(_, value)| *value)
    }

    /// Returns true if the object has this key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Returns true if the object has all of these keys and no other key. Repeated keys are allowed.
    pub(super) fn has_only(&self, keys: &[&str]) -> bool {
        keys.iter().all(|key| self.has(key)) && self.0.iter().all(|(key, _)| keys.contains(&&**key))
    }

    /// Refuses an object that has one of these keys twice. If a key is repeated, JSON readers differ in which
    /// of the values they use.
    pub(super) fn refuse_repeated(&self, keys: &[&str]) -> Result<(), Rejection> {
        let is_repeated =
            |key: &&&str| self.0.iter().filter(|(found, _)| found == **key).count() > 1;
        match keys.iter().find(is_repeated) {
            Some(key) => Err(Rejection::shape(&format!("duplicate field `{key}`"))),
            None => Ok(()),
        }
    }

    /// Returns the value of a required key.
    pub(super) fn required<T: Deserialize<'a>>(&self, key: &str) -> Result<T, Rejection> {
        let value = self.get(key);
        parse(key, value.ok_or_else(|| Rejection::shape(&format!("missing field `{key}`")))?)
    }

    /// Returns the value of a key that may be missing or `null`.
    pub(super) fn optional<T: Deserialize<'a>>(&self, key: &str) -> Result<Option<T>, Rejection> {
        self.get(key).map_or(Ok(None), |value| parse(key, value))
    }
}

fn parse<'a, T: Deserialize<'a>>(key: &str, value: &'a RawValue) -> Result<T, Rejection> {
    serde_json::from_str(value.get())
        .map_err(|error| Rejection::shape(&format!("`{key}`: {error}")))
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor).map(Self)
    }
}

struct MembersVisitor;

/// A key, borrowed from the text if the key has no escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((Key(key), value)) = map.next_entry()? {
            members.push((key, value));
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_texts_and_the_last_of_equal_keys_counts() {
        let members = Members::read(r#"{"a":1.50,"\u0062":{"a":2},"a": null }"#).unwrap();
        assert_eq!(members.get("a").unwrap().get(), "null");
        assert_eq!(members.get("b").unwrap().get(), r#"{"a":2}"#);
        assert!(members.has_only(&["a", "b"]) && !members.has_only(&["a"]));
        assert!(!members.has_only(&["a", "b", "c"]));
        assert!(members.refuse_repeated(&["b", "c"]).is_ok());
        assert_eq!(members.refuse_repeated(&["b", "a"]).unwrap_err().reason(), "body-shape");
        assert_eq!(members.optional::<u8>("a").unwrap(), None);
        assert_eq!(members.required::<u8>("c").unwrap_err().reason(), "body-shape");
    }

    fn check_refused(text: &str, expected: &str) {
        assert_eq!(Members::read(text).unwrap_err().reason(), expected, "{text:.80}");
    }

    #[test]
    fn a_text_that_is_not_an_object_of_json_is_refused() {
        check_refused("[]", "body-shape");
        check_refused("[", "body-not-json");
        check_refused("{} {}", "body-not-json");
        check_refused(r#"{"a":1"#, "body-not-json");
        check_refused(r#"{"a":"\ud800"}"#, "lone-surrogate");
        check_refused(r#"{"\udc00":1}"#, "lone-surrogate");
        check_refused(r#"{"$serde_json::private::RawValue":"1"}"#, "reserved-key");
        check_refused(&"[".repeat(1000), "body-too-deep");
    }
}
