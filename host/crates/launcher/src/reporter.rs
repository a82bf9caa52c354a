//! The destination of the report.
//!
//! Owns where its lines go. Must not know what leads to them. Before it: both processes of the
//! supervisor and the pipeline; after it: standard error or the control socket.

use std::io::{self, Write};

use crate::control::Control;
use crate::error::LaunchError;
use crate::layer::Layer;
use crate::report::{LayerState, Report, one_line};

/// The destination of the lines of a report.
pub enum Reporter {
    /// No report; only a failure is written, to standard error.
    None,
    /// Standard error, for a person.
    Stderr,
    /// The control socket, for the daemon.
    Control(Control),
}

impl Reporter {
    /// Writes a line of the report.
    pub(crate) fn write(&self, report: &Report) {
        match self {
            Self::None => (),
            Self::Stderr => drop(writeln!(io::stderr(), "loopabull-launch: {report}")),
            Self::Control(control) => control.report(report),
        }
    }

    /// Reports the state of a layer.
    pub(crate) fn layer(&self, layer: Layer, state: LayerState, detail: impl Into<String>) {
        self.write(&Report::Layer { layer, state, detail: detail.into() });
    }

    /// Reports why the program was not run. Without a control socket the reason is always written to
    /// standard error.
    pub fn fail(&self, code: u8, reason: String) {
        if !matches!(self, Self::Control(_)) {
            // If standard error is closed, the exit code is still right; that of a panic would not be.
            writeln!(io::stderr(), "loopabull-launch: {}", one_line(&reason)).ok();
        }
        self.write(&Report::Failed { code, reason });
    }

    /// Reports a failed launch, and returns the exit code for it.
    pub fn fail_launch(&self, error: &LaunchError) -> u8 {
        let code = error.exit_code();
        self.fail(code, format!("{error}: {}", error.source));
        code
    }
}
