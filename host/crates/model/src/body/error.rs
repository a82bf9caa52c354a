//! The reasons why a text cannot be the body of a message.

/// The maximum nesting of arrays and objects.
///
/// It is serde_json's own limit; Python's is about a thousand. No real bus message comes near.
pub const MAX_DEPTH: usize = 127;

/// The prefix by which serde_json marks its own numbers and raw values.
///
/// serde_json would take such a key from outside for its own: it would parse the text in its value
/// as JSON, with a new count of the depth.
pub(super) const RESERVED: &str = "$serde_json::private::";

/// The reason why a text cannot be the body of a message.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("body is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("body has a lone surrogate at line {line}, column {column}")]
    LoneSurrogate { line: usize, column: usize },
    #[error("body has a reserved key: it starts with `{RESERVED}`")]
    ReservedKey,
    #[error("body is not JSON: {reason}")]
    NotJson { reason: String },
}

impl From<serde_json::Error> for BodyError {
    fn from(error: serde_json::Error) -> Self {
        // serde_json has no public codes; the tests of `Body` cover its texts for these two.
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
