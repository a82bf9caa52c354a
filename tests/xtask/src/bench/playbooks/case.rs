//! The systems that are measured.

use clap::ValueEnum;

/// A system that runs a playbook for each message, or a part of such a system.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Case {
    /// `ansible-playbook`, started by `xargs -P5`, without a queue
    Bare,
    /// loopabull-host with its embedded queue and `start = "cold"`
    Cold,
    /// loopabull-host with its embedded queue and `start = "warm"`
    Warm,
    /// Five processes of the Python loopabull 0.0.7, with RabbitMQ
    Loopabull,
    /// ansible-rulebook 1.3.2 with its action `run_playbook`, five at a time, and messages from a
    /// file
    Rulebook,
    /// Only `loopabull-launch`, with `/bin/true`
    Launcher,
}

impl Case {
    /// Returns the name of the case in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare: `xargs -P5 -n1 ansible-playbook`",
            Self::Cold => "loopabull-host, `start = \"cold\"`",
            Self::Warm => "loopabull-host, `start = \"warm\"`",
            Self::Loopabull => "loopabull 0.0.7 (Python), RabbitMQ",
            Self::Rulebook => "ansible-rulebook 1.3.2, `run_playbook`, no queue",
            Self::Launcher => "launcher overhead per run",
        }
    }

    /// Returns the short name of the case, which is also the name of its folder.
    pub(crate) fn slug(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Cold => "cold",
            Self::Warm => "warm",
            Self::Loopabull => "loopabull",
            Self::Rulebook => "rulebook",
            Self::Launcher => "launcher",
        }
    }

    /// Returns whether the case runs programs of this repository.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Cold | Self::Warm | Self::Launcher)
    }
}
