//! The report of the launcher: one line for each layer, and lines about the end of the program.
//!
//! This module formats and parses the lines. The module `reporter` sends them. The launcher writes the
//! report, and a person or the daemon reads it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::layer::Layer;

/// The state of a layer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LayerState {
    /// The layer is applied.
    Active,
    /// The layer is not required, and is missing or incomplete.
    Degraded,
    /// The layer was not requested.
    Off,
}

/// The access to a file.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum FileAccess {
    /// The file was read or executed.
    Read,
    /// The file was there, and was written.
    Write,
    /// The file was created, removed or replaced.
    Create,
}

/// One line of the report that the launcher writes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Report {
    /// The state of a layer, with a short explanation.
    Layer { layer: Layer, state: LayerState, detail: String },
    /// The program was not run. `code` is the exit code of the launcher.
    Failed { code: u8, reason: String },
    /// The program exited with this status.
    Exited { status: i32 },
    /// This signal ended the program.
    Signalled { signal: i32 },
    /// The program tried to connect to this TCP port, which is not granted.
    Denied { port: u16 },
    /// The program used this file, which is named by an absolute path without links.
    Used { access: FileAccess, path: PathBuf },
    /// The launcher could not watch everything that [`crate::Watch`] asks for.
    Unwatched { reason: String },
    /// The launcher killed this number of processes that the program had left behind.
    Killed { count: usize },
}

impl LayerState {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Degraded => "degraded",
            Self::Off => "off",
        }
    }
}

impl fmt::Display for Report {
    /// Writes the line without a line break.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layer { layer, state, detail } => {
                write!(f, "layer {layer} {} {}", state.as_str(), one_line(detail))
            }
            Self::Failed { code, reason } => write!(f, "failed {code} {}", one_line(reason)),
            Self::Exited { status } => write!(f, "exited {status}"),
            Self::Signalled { signal } => write!(f, "signalled {signal}"),
            Self::Denied { port } => write!(f, "denied {port}"),
            Self::Used { access, path } => {
                let access = match access {
                    FileAccess::Read => "read",
                    FileAccess::Write => "write",
                    FileAccess::Create => "create",
                };
                write!(f, "used {access} {}", one_line(&path.display().to_string()))
            }
            Self::Unwatched { reason } => write!(f, "unwatched {}", one_line(reason)),
            Self::Killed { count } => write!(f, "killed {count}"),
        }
    }
}

impl FromStr for Report {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let (verb, rest) = line.split_once(' ').ok_or(())?;
        let number = || rest.parse().map_err(drop);
        Ok(match verb {
            "layer" => {
                let mut words = rest.splitn(3, ' ');
                let layer = words.next().ok_or(())?.parse()?;
                let state = match words.next() {
                    Some("active") => LayerState::Active,
                    Some("degraded") => LayerState::Degraded,
                    Some("off") => LayerState::Off,
                    _ => return Err(()),
                };
                Self::Layer { layer, state, detail: words.next().unwrap_or_default().to_owned() }
            }
            "failed" => {
                let (code, reason) = rest.split_once(' ').ok_or(())?;
                Self::Failed { code: code.parse().map_err(drop)?, reason: reason.to_owned() }
            }
            "exited" => Self::Exited { status: number()? },
            "signalled" => Self::Signalled { signal: number()? },
            "denied" => Self::Denied { port: rest.parse().map_err(drop)? },
            "used" => {
                let (access, path) = rest.split_once(' ').ok_or(())?;
                let access = match access {
                    "read" => FileAccess::Read,
                    "write" => FileAccess::Write,
                    "create" => FileAccess::Create,
                    _ => return Err(()),
                };
                Self::Used { access, path: path.into() }
            }
            "unwatched" => Self::Unwatched { reason: rest.to_owned() },
            "killed" => Self::Killed { count: rest.parse().map_err(drop)? },
            _ => return Err(()),
        })
    }
}

/// Replaces control characters by `?`. A path may contain a line break, and a reader would take the text
/// after the line break for another line of the report.
pub(crate) fn one_line(text: &str) -> String {
    text.replace(char::is_control, "?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_survives_display_and_parse() {
        let reports = [
            Report::Layer {
                layer: Layer::Tcp,
                state: LayerState::Degraded,
                detail: "Landlock ABI 3".into(),
            },
            Report::Layer { layer: Layer::User, state: LayerState::Off, detail: String::new() },
            Report::Failed { code: 125, reason: "cannot enter `a b`".into() },
            Report::Exited { status: 3 },
            Report::Signalled { signal: 9 },
            Report::Denied { port: 443 },
            Report::Used { access: FileAccess::Write, path: "/srv/a b".into() },
            Report::Unwatched { reason: "the kernel".into() },
            Report::Killed { count: 2 },
        ];
        for report in reports {
            assert_eq!(report.to_string().parse(), Ok(report));
        }
    }

    #[test]
    fn malformed_line_is_refused() {
        for line in ["", "layer", "layer tcp", "layer tcp maybe x", "exited", "exited x", "x 1"] {
            assert_eq!(line.parse::<Report>(), Err(()), "{line}");
        }
    }

    #[test]
    fn reason_with_a_line_break_becomes_one_line() {
        let report = Report::Failed { code: 1, reason: "a\nexited 0".into() };
        assert_eq!(report.to_string(), "failed 1 a?exited 0");
    }
}
