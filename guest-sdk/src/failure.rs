//! The failure that a task returns if it cannot handle a message.
//!
//! There are two kinds of failure. After `Retry`, the host delivers the message again, as often as the
//! manifest allows. After `Reject`, the host moves the message to the dead-letter queue at once.

use std::error::Error;

/// The reason why a task did not handle a message.
///
/// The operator `?` turns every [`std::error::Error`] into a [`Failure::Retry`]. The reason is the text of
/// the error and its sources, joined by ": ". `Failure` itself does not implement `Error`, because then Rust
/// would not allow this conversion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A later attempt may succeed. The host counts the attempt and delivers the message again.
    Retry(String),
    /// No later attempt can succeed. The host moves the message to the dead-letter queue at once.
    Reject(String),
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Retry(chain(&error))
    }
}

/// The result of a task, and of the functions that it calls.
pub type Result<T = ()> = std::result::Result<T, Failure>;

/// Returns [`Failure::Reject`]. The host moves the message to the dead-letter queue at once.
///
/// ```
/// # use loopabull_task::{Result, reject};
/// fn check_name(name: &str) -> Result {
///     if name.is_empty() {
///         return reject("the package name is empty");
///     }
///     Ok(())
/// }
/// ```
///
/// # Errors
///
/// This function always returns an error.
pub fn reject<T>(reason: impl Into<String>) -> Result<T> {
    Err(Failure::Reject(reason.into()))
}

/// Returns [`Failure::Retry`]. The host counts the attempt and delivers the message again.
///
/// # Errors
///
/// This function always returns an error.
pub fn retry<T>(reason: impl Into<String>) -> Result<T> {
    Err(Failure::Retry(reason.into()))
}

/// Turns an error into [`Failure::Reject`]. Without this trait, `?` turns the error into [`Failure::Retry`].
///
/// ```
/// # use loopabull_task::{OrReject, Result};
/// fn major(version: &str) -> Result<u32> {
///     version.split('.').next().unwrap_or_default().parse().or_reject()
/// }
/// ```
pub trait OrReject<T> {
    /// Returns the value of `Ok`, or turns the error and its sources into [`Failure::Reject`].
    ///
    /// # Errors
    ///
    /// [`Failure::Reject`] if `self` is an error.
    fn or_reject(self) -> Result<T>;
}

impl<T, E: Error> OrReject<T> for std::result::Result<T, E> {
    fn or_reject(self) -> Result<T> {
        self.map_err(|error| Failure::Reject(chain(&error)))
    }
}

/// Returns the texts of an error and its sources, joined by ": ".
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Outer(std::num::ParseIntError);

    impl fmt::Display for Outer {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("cannot read the release")
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    fn release(text: &str) -> std::result::Result<i64, Outer> {
        text.parse().map_err(Outer)
    }

    const CHAIN: &str = "cannot read the release: invalid digit found in string";

    #[test]
    fn question_mark_turns_an_error_and_its_sources_into_a_retry() {
        let task = || -> Result<i64> { Ok(release("x")?) };
        assert_eq!(task(), Err(Failure::Retry(CHAIN.to_owned())));
    }

    #[test]
    fn or_reject_turns_an_error_and_its_sources_into_a_rejection() {
        assert_eq!(release("x").or_reject(), Err(Failure::Reject(CHAIN.to_owned())));
    }

    #[test]
    fn or_reject_returns_a_value_unchanged() {
        assert_eq!(release("7").or_reject(), Ok(7));
    }

    #[test]
    fn question_mark_returns_a_failure_unchanged() {
        let task = || -> Result {
            reject::<()>("no")?;
            Ok(())
        };
        assert_eq!(task(), Err(Failure::Reject("no".to_owned())));
        assert_eq!(retry::<()>("later"), Err(Failure::Retry("later".to_owned())));
    }
}
