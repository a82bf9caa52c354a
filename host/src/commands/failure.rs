//! How a command ends: its exit code, and its error with a hint for the user.

use std::io::Write;
use std::process::ExitCode;

use crate::config::ConfigError;
use crate::daemon::DaemonError;

/// Everything was done as asked.
pub(crate) const DONE: u8 = 0;
/// Something failed; the message on standard error says what.
pub(crate) const FAILED: u8 = 1;
/// The command line or the configuration cannot be used.
pub(crate) const BAD_USAGE: u8 = 64;

/// Why a command did not do what it was asked, and what the user can do.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    error: anyhow::Error,
    hint: Option<String>,
}

impl Failure {
    /// A failure with a hint.
    pub(crate) fn with_hint(error: impl Into<anyhow::Error>, hint: impl Into<String>) -> Self {
        Self { code: FAILED, error: error.into(), hint: Some(hint.into()) }
    }

    /// Prints the error and its hint to standard error, and returns the exit code.
    pub(crate) fn report(self) -> ExitCode {
        let mut stderr = std::io::stderr().lock();
        // If standard error is gone there is nobody to tell.
        drop(writeln!(stderr, "loopabull-host: {:#}", self.error));
        if let Some(hint) = self.hint {
            drop(writeln!(stderr, "hint: {hint}"));
        }
        ExitCode::from(self.code)
    }

    /// The same with another exit code.
    pub(crate) fn with_code(self, code: u8) -> Self {
        Self { code, ..self }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        let hint = error.downcast_ref().and_then(ConfigError::hint).map(str::to_owned);
        let hint = hint.or_else(|| error.downcast_ref().and_then(DaemonError::hint));
        let is_usage = error.is::<ConfigError>()
            || matches!(error.downcast_ref(), Some(DaemonError::TooLong(_)));
        let code = if is_usage { BAD_USAGE } else { FAILED };
        Self { code, error, hint }
    }
}
