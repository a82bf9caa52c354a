//! How a task says that it did not deal with a message.
//!
//! Owns the choice between the two things a queue can do: try again, or set aside. Comes
//! after the task's own code; the host acts on what is returned here.

use std::error::Error;

/// Why a message was not dealt with.
///
/// Every [`std::error::Error`] becomes a [`Failure::Retry`] by `?`, with its chain of
/// sources joined by ": ". For that reason this type is not itself an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It may work later: the message comes back, and the attempt is counted.
    Retry(String),
    /// It never will: the message goes to the dead letters now.
    Reject(String),
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Retry(chain(&error))
    }
}

/// What a task returns.
pub type Result<T = ()> = std::result::Result<T, Failure>;

/// Returns a [`Failure::Reject`]: the message goes to the dead letters now.
///
/// Reads as `return reject("no package name");`.
///
/// # Errors
///
/// Always.
pub fn reject<T>(reason: impl Into<String>) -> Result<T> {
    Err(Failure::Reject(reason.into()))
}

/// Returns a [`Failure::Retry`]: the message comes back, and the attempt is counted.
///
/// # Errors
///
/// Always.
pub fn retry<T>(reason: impl Into<String>) -> Result<T> {
    Err(Failure::Retry(reason.into()))
}

/// Turns an error into a [`Failure::Reject`], where `?` alone would ask for a retry.
pub trait OrReject<T> {
    /// Returns the value, or rejects the message with the error and its chain of sources.
    ///
    /// # Errors
    ///
    /// [`Failure::Reject`] if there is no value.
    fn or_reject(self) -> Result<T>;
}

impl<T, E: Error> OrReject<T> for std::result::Result<T, E> {
    fn or_reject(self) -> Result<T> {
        self.map_err(|error| Failure::Reject(chain(&error)))
    }
}

/// Returns the error and its sources, joined by ": ".
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
    fn question_mark_asks_for_a_retry_with_the_whole_chain() {
        let task = || -> Result<i64> { Ok(release("x")?) };
        assert_eq!(task(), Err(Failure::Retry(CHAIN.to_owned())));
    }

    #[test]
    fn or_reject_rejects_with_the_whole_chain() {
        assert_eq!(release("x").or_reject(), Err(Failure::Reject(CHAIN.to_owned())));
    }

    #[test]
    fn value_passes_or_reject() {
        assert_eq!(release("7").or_reject(), Ok(7));
    }

    #[test]
    fn failure_passes_the_question_mark_unchanged() {
        let task = || -> Result {
            reject::<()>("no")?;
            Ok(())
        };
        assert_eq!(task(), Err(Failure::Reject("no".to_owned())));
        assert_eq!(retry::<()>("later"), Err(Failure::Retry("later".to_owned())));
    }
}
