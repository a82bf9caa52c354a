//! The reasons why a text has no canonical form.

/// The maximum number of digits of an integer, which is Python's default limit since 3.11 (`sys.int_info`).
pub const MAX_INTEGER_DIGITS: usize = 4300;

/// The reason why a text has no canonical form.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum JsonError {
    #[error("text is nested deeper than {limit} levels", limit = loopabull_model::MAX_DEPTH)]
    TooDeep,
    #[error("integer has more than {MAX_INTEGER_DIGITS} digits")]
    TooManyDigits,
    #[error("{problem} at byte {at}")]
    Syntax { problem: &'static str, at: usize },
}
