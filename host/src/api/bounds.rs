//! Texts and numbers with bounds, which the description of the API names. What is outside of them is refused.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// A text of at most `MAX` characters.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(crate) struct Text<const MAX: usize>(pub String);

/// A whole number between `MIN` and `MAX`, both included. `MAX` is at most 2⁵³, so that every program can read it.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(try_from = "u64")]
pub(crate) struct Number<const MIN: u64, const MAX: u64>(pub u64);

impl<const MAX: usize> TryFrom<String> for Text<MAX> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.chars().nth(MAX) {
            Some(_) => Err(format!("a text has more than {MAX} characters")),
            None => Ok(Self(text)),
        }
    }
}

impl<const MIN: u64, const MAX: u64> TryFrom<u64> for Number<MIN, MAX> {
    type Error = String;

    fn try_from(number: u64) -> Result<Self, String> {
        match number {
            _ if (MIN..=MAX).contains(&number) => Ok(Self(number)),
            _ => Err(format!("{number} is not between {MIN} and {MAX}")),
        }
    }
}

impl<const MAX: usize> PartialSchema for Text<MAX> {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::String).max_length(Some(MAX)).into()
    }
}

impl<const MIN: u64, const MAX: u64> PartialSchema for Number<MIN, MAX> {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new().schema_type(Type::Integer);
        number.minimum(Some(MIN)).maximum(Some(MAX)).into()
    }
}

impl<const MAX: usize> ToSchema for Text<MAX> {
    fn name() -> Cow<'static, str> {
        format!("Text{MAX}").into()
    }
}

impl<const MIN: u64, const MAX: u64> ToSchema for Number<MIN, MAX> {
    fn name() -> Cow<'static, str> {
        format!("Number{MIN}To{MAX}").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_are_included() {
        for (text, is_fine) in [("0", false), ("1", true), ("7", true), ("8", false), ("-1", false)]
        {
            assert_eq!(serde_json::from_str::<Number<1, 7>>(text).is_ok(), is_fine, "{text}");
        }
        for (text, is_fine) in [("", true), ("ää", true), ("aaa", false)] {
            assert_eq!(Text::<2>::try_from(text.to_owned()).is_ok(), is_fine, "{text}");
        }
    }
}
