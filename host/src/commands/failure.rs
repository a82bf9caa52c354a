//! The exit codes and errors of commands. An error can have a hint for the user.

use std::io::Write;
use std::process::ExitCode;

use loopabull_queue::QueueError;

use crate::config::ConfigError;
use crate::daemon::DaemonError;

/// The command succeeded.
pub(crate) const DONE: u8 = 0;
/// The command failed. The error is on standard error.
pub(crate) const FAILED: u8 = 1;
/// An argument is invalid. clap has the same code for what it refuses.
pub(crate) const BAD_ARGUMENTS: u8 = 2;
/// No task subscribes to the topic of a message.
pub(crate) const NO_TASK: u8 = 3;
/// The configuration is invalid. An invalid command line has the exit code 2 of clap.
pub(crate) const BAD_USAGE: u8 = 64;

/// The error of a failed command, its exit code, and a hint for the user.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    error: anyhow::Error,
    hint: Option<String>,
}

impl Failure {
    /// Returns a failure with a hint and the exit code [`FAILED`].
    pub(crate) fn with_hint(error: impl Into<anyhow::Error>, hint: impl Into<String>) -> Self {
        Self { code: FAILED, error: error.into(), hint: Some(hint.into()) }
    }

    /// Prints the error and its hint to standard error, and returns the exit code.
    pub(crate) fn report(self) -> ExitCode {
        // If standard error is closed, nobody can read the error, so a failed write is ignored.
        drop(write!(std::io::stderr().lock(), "loopabull-host: {}", self.text()));
        ExitCode::from(self.code)
    }

    /// Returns the error and its hint, a line each.
    pub(crate) fn text(&self) -> String {
        let hint = self.hint.as_ref().map_or(String::new(), |hint| format!("hint: {hint}\n"));
        format!("{:#}\n{hint}", self.error)
    }

    /// Replaces the exit code.
    pub(crate) fn with_code(self, code: u8) -> Self {
        Self { code, ..self }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        let hint = error.downcast_ref().and_then(ConfigError::hint).map(str::to_owned);
        let hint = hint.or_else(|| error.downcast_ref().and_then(DaemonError::hint));
        let queue_hint = || error.downcast_ref().and_then(QueueError::hint).map(str::to_owned);
        let hint = hint.or_else(queue_hint);
        let is_usage = error.is::<ConfigError>()
            || matches!(
                error.downcast_ref(),
                Some(DaemonError::TimeoutTooLong(_) | DaemonError::Directory { .. })
            );
        let code = if is_usage { BAD_USAGE } else { FAILED };
        Self { code, error, hint }
    }
}
