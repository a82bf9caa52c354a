//! The destination of the report: standard error, the control socket, or none.
//!
//! The supervisor and the pipeline write the report through this module. The module `report` defines the
//! format of the lines.

use std::io::{self, Write};

use crate::control::Control;
use crate::error::LaunchError;
use crate::layer::Layer;
use crate::report::{LayerState, Report, one_line};

/// The destination of the lines of a report.
pub enum Reporter {
    /// No report is written. The reason of a failure is still written to standard error.
    None,
    /// The report is written to standard error, for a person.
    Stderr,
    /// The report is sent on the control socket, to the daemon.
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

    /// Reports the reason why the program was not run. Without a control socket, the reason is always written
    /// to standard error.
    pub fn fail(&self, code: u8, reason: String) {
        if !matches!(self, Self::Control(_)) {
            // If standard error is closed, `eprintln!` would panic and change the exit code. So we use
            // `writeln!` and ignore the error.
            writeln!(io::stderr(), "loopabull-launch: {}", one_line(&reason)).ok();
        }
        self.write(&Report::Failed { code, reason });
    }

    /// Reports a failed launch. Returns the exit code of the launcher.
    pub fn fail_launch(&self, error: &LaunchError) -> u8 {
        let code = error.exit_code();
        self.fail(code, format!("{error}: {}", error.source));
        code
    }
}
