//! What is measured.

use clap::ValueEnum;

/// Something that runs a playbook for each message, or a part of that.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Case {
    /// `ansible-playbook` by `xargs -P5`, without any queue
    Bare,
    /// loopabull-host, its queue in a file, `start = "cold"`
    Cold,
    /// loopabull-host, its queue in a file, `start = "warm"`
    Warm,
    /// Five processes of the Python loopabull 0.0.7, with RabbitMQ
    Loopabull,
    /// ansible-rulebook 1.3.2: its action `run_playbook`, five at a time, with messages from a file
    Rulebook,
    /// `loopabull-launch` alone, with `/bin/true`
    Launcher,
}

impl Case {
    /// Returns its name in the table.
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

    /// Returns its short name, which is also its folder's.
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

    /// Returns whether it starts programs of ours.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Cold | Self::Warm | Self::Launcher)
    }
}
