//! The layers of a confinement, and what is said of each.
//!
//! Owns their names and the lines of a report. Must not know how a layer is applied. Before it: the
//! parts that apply one; after it: whoever reads the report, a person or the daemon.

use std::fmt;
use std::str::FromStr;

/// A part of a confinement that a kernel may lack or a machine may forbid.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Layer {
    /// Processes, mounts, shared memory and message queues of its own; a root directory in which
    /// nothing is but what was granted.
    Namespaces,
    /// A control group of its own, which is killed as one.
    Cgroup,
    /// A user of its own. Only root can give one.
    User,
    /// No capability, and none to be had by executing a file.
    Capabilities,
    /// No setuid program gives new privileges.
    NewPrivileges,
    /// Limits of the kernel on what each process uses.
    Limits,
    /// The number of processes.
    Processes,
    /// Nothing of the file system but what was granted.
    Files,
    /// No connection to a TCP port but those that were granted, and no port bound to listen on. A socket
    /// that listens without gets one by chance, and UDP is not limited.
    Tcp,
    /// No signal and no abstract socket across the border.
    Scopes,
    /// No socket in the file system but those that were granted.
    Sockets,
    /// No system call that is of no use to a well-meaning program.
    Syscalls,
}

/// What became of a layer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Held {
    /// It is in force.
    Yes,
    /// It is not, or not whole, and was not required.
    No,
    /// It was not wanted.
    Off,
}

impl Layer {
    /// Every layer, in the order in which they come into force.
    pub const ALL: [Self; 12] = [
        Self::Namespaces,
        Self::Cgroup,
        Self::User,
        Self::Capabilities,
        Self::NewPrivileges,
        Self::Limits,
        Self::Processes,
        Self::Files,
        Self::Tcp,
        Self::Scopes,
        Self::Sockets,
        Self::Syscalls,
    ];

    /// Those without which nothing is ever run.
    pub const ALWAYS: [Self; 4] = [Self::NewPrivileges, Self::Limits, Self::Files, Self::Syscalls];

    /// Returns the name, as options and reports have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Cgroup => "cgroup",
            Self::User => "user",
            Self::Capabilities => "capabilities",
            Self::NewPrivileges => "new-privileges",
            Self::Limits => "limits",
            Self::Processes => "processes",
            Self::Files => "files",
            Self::Tcp => "tcp",
            Self::Scopes => "scopes",
            Self::Sockets => "sockets",
            Self::Syscalls => "syscalls",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Layer {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|layer| layer.name() == name).ok_or(())
    }
}

impl Held {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Yes => "held",
            Self::No => "degraded",
            Self::Off => "off",
        }
    }
}

/// One line of the report that the launcher writes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Report {
    /// What became of a layer, in a few words.
    Layer { layer: Layer, held: Held, detail: String },
    /// The program was not run, and why.
    Failed { code: u8, reason: String },
    /// The program ended by itself.
    Exited { status: i32 },
    /// The program was ended by a signal.
    Signalled { signal: i32 },
    /// So many other processes were there when it had ended, and were killed.
    Killed { count: usize },
}

impl fmt::Display for Report {
    /// Writes one line without its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layer { layer, held, detail } => {
                write!(f, "layer {layer} {} {}", held.as_str(), one_line(detail))
            }
            Self::Failed { code, reason } => write!(f, "failed {code} {}", one_line(reason)),
            Self::Exited { status } => write!(f, "exited {status}"),
            Self::Signalled { signal } => write!(f, "signalled {signal}"),
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
                let held = match words.next() {
                    Some("held") => Held::Yes,
                    Some("degraded") => Held::No,
                    Some("off") => Held::Off,
                    _ => return Err(()),
                };
                Self::Layer { layer, held, detail: words.next().unwrap_or_default().to_owned() }
            }
            "failed" => {
                let (code, reason) = rest.split_once(' ').ok_or(())?;
                Self::Failed { code: code.parse().map_err(drop)?, reason: reason.to_owned() }
            }
            "exited" => Self::Exited { status: number()? },
            "signalled" => Self::Signalled { signal: number()? },
            "killed" => Self::Killed { count: rest.parse().map_err(drop)? },
            _ => return Err(()),
        })
    }
}

/// A path may hold a line break; whoever reads our line must not take the rest for another.
pub(crate) fn one_line(text: &str) -> String {
    text.replace(char::is_control, "?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_its_line() {
        let reports = [
            Report::Layer { layer: Layer::Tcp, held: Held::No, detail: "Landlock ABI 3".into() },
            Report::Layer { layer: Layer::User, held: Held::Off, detail: String::new() },
            Report::Failed { code: 125, reason: "cannot enter `a b`".into() },
            Report::Exited { status: 3 },
            Report::Signalled { signal: 9 },
            Report::Killed { count: 2 },
        ];
        for report in reports {
            assert_eq!(report.to_string().parse(), Ok(report));
        }
    }

    #[test]
    fn every_layer_has_a_name_of_its_own() {
        for layer in Layer::ALL {
            assert_eq!(layer.name().parse(), Ok(layer));
        }
    }

    #[test]
    fn what_is_no_report_is_refused() {
        for line in ["", "layer", "layer tcp", "layer tcp maybe x", "exited", "exited x", "x 1"] {
            assert_eq!(line.parse::<Report>(), Err(()), "{line}");
        }
    }

    #[test]
    fn a_reason_with_a_line_break_is_one_line() {
        let report = Report::Failed { code: 1, reason: "a\nexited 0".into() };
        assert_eq!(report.to_string(), "failed 1 a?exited 0");
    }
}
