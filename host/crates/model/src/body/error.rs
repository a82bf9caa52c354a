//! The reasons why a text is not accepted as the body of a message.

/// The maximum nesting depth of arrays and objects.
///
/// serde_json has the same limit. Python's limit is about 1000. Messages of real buses are nested far less.
pub const MAX_DEPTH: usize = 127;

/// The prefix of serde_json's reserved keys, which mark its numbers and raw values.
///
/// Bodies with such a key are refused: serde_json would parse the string value of the key as JSON, and would
/// count the depth of that JSON from zero.
pub(super) const RESERVED: &str = "$serde_json::private::";

/// The reason why a text is not accepted as the body of a message.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("body is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("body has a lone surrogate at line {line}, column {column}")]
    LoneSurrogate { line: usize, column: usize },
    #[error("body has a reserved key, which starts with `{RESERVED}`")]
    ReservedKey,
    #[error("body is not JSON: {reason}")]
    NotJson { reason: String },
}

impl From<serde_json::Error> for BodyError {
    fn from(error: serde_json::Error) -> Self {
        // serde_json has no public error codes, so its error texts are compared. The tests of `Body` check
        // these texts.
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
