//! The errors of this crate.
//!
//! A playbook that fails is an outcome and not an error. An error here is a failure of this machine or of
//! its configuration.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use loopabull_launcher::is_shortage;
use loopabull_model::{Outcome, chain};

/// The reason why this machine cannot run any playbook.
#[derive(Debug, thiserror::Error)]
pub enum PlaybookError {
    #[error("cannot create directory `{path}`")]
    Runs { path: PathBuf, source: io::Error },
    #[error("cannot write `{path}`")]
    Plugin { path: PathBuf, source: io::Error },
    #[error(
        "playbooks cannot use the state directory `{path}`: its path has a colon or a line feed"
    )]
    StatePath { path: PathBuf },
    #[error("cannot find `ansible-playbook` in the directories of `PATH`")]
    NoAnsible,
    #[error("cannot find the launcher `{path}`")]
    NoLauncher { path: PathBuf },
    #[error("`{name}` under `[playbook]` is not a user of this machine")]
    NoUser { name: String },
    #[error("cannot look up the user `{name}` under `[playbook]`")]
    UserLookup { name: String, source: io::Error },
    #[error("`{name}` under `[playbook]` is not the name of a confinement layer")]
    NoLayer { name: String },
}

/// The reason why one playbook cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot create directory `{path}`")]
    MakeDir { path: PathBuf, source: io::Error },
    #[error("cannot write `{path}`")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot open playbook `{name}`")]
    Open { name: String, source: io::Error },
    #[error("playbook `{name}` is not a file")]
    NotAFile { name: String },
    #[error("`{name}` is not inside the playbooks directory")]
    Outside { name: String },
    #[error("cannot use `{name}` in the playbooks directory")]
    Missing { name: String, source: io::Error },
    #[error("the ssh agent `{path}` is not a socket")]
    NoAgent { path: PathBuf },
    #[error("`{name}` is not the name of a confinement layer")]
    NoLayer { name: String },
    #[error("cannot start a controller, because `{path}` is not a Python program")]
    NotPython { path: PathBuf },
    #[error("cannot start `{path}`")]
    Launch { path: PathBuf, source: io::Error },
}

impl StartError {
    /// Returns the outcome of a run that did not start for this reason.
    pub(crate) fn outcome(&self) -> Outcome {
        let reason = chain(self).into();
        match self {
            Self::MakeDir { source, .. }
            | Self::Write { source, .. }
            | Self::Open { source, .. }
            | Self::Missing { source, .. }
            | Self::Launch { source, .. }
                if is_shortage(source) =>
            {
                Outcome::Shortage { reason }
            }
            Self::NotPython { .. } | Self::NoLayer { .. } => Outcome::NotStarted { reason },
            _ => Outcome::Unavailable { reason },
        }
    }
}

/// The reason why a check of a playbook or of the layers failed.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{outcome}\n{output}")]
    Playbook { outcome: Outcome, output: String },
    #[error(
        "`vault_password_file` of Ansible's configuration is `{}`, which playbooks cannot read; remove it there, and \
         write `vault_password = \"vault\"` under `[ansible]` and `vault = {{ file = \"{}\" }}` under \
         `[grants.secrets]`",
        .path.display(),
        .path.display()
    )]
    VaultPassword { path: PathBuf },
    #[error(
        "`{}` is not Ansible's own Python script; if it starts another `ansible-playbook`, name that one with \
         `ansible_playbook` under `[playbook]`",
        .program.display()
    )]
    Wrapper { program: PathBuf, source: Box<CheckError> },
    #[error("cannot pass the message to the playbook: {reason}")]
    Message { reason: String },
    #[error("cannot find the settings of Ansible in its output:\n{output}")]
    NoSettings { output: String },
    #[error("cannot read the settings of Ansible within {}", humantime::format_duration(*timeout))]
    SlowSettings { timeout: Duration },
    #[error("cannot read the configuration file of Ansible")]
    Config { source: io::Error },
    #[error("cannot read the settings of Ansible")]
    Settings { source: serde_json::Error },
    #[error("{outcome}")]
    Layers { outcome: Outcome },
}

impl CheckError {
    /// Returns true if the check did not start, because the machine is short of something. A later check may
    /// succeed.
    pub fn is_shortage(&self) -> bool {
        match self {
            Self::Start(error) => matches!(error.outcome(), Outcome::Shortage { .. }),
            Self::Playbook { outcome, .. } | Self::Layers { outcome } => {
                matches!(outcome, Outcome::Shortage { .. })
            }
            Self::Wrapper { source, .. } => source.is_shortage(),
            Self::Config { source } => is_shortage(source),
            Self::VaultPassword { .. }
            | Self::SlowSettings { .. }
            | Self::Message { .. }
            | Self::NoSettings { .. }
            | Self::Settings { .. } => false,
        }
    }
}

/// The reason why a controller cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControllerError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("cannot create a socket or a pipe for the controller")]
    Pipe(#[source] io::Error),
    #[error("cannot send a command to the controller")]
    Send(#[source] io::Error),
    #[error("cannot receive a reply from the controller")]
    Receive(#[source] io::Error),
    #[error("the controller process has ended")]
    Ended,
    #[error("cannot parse the reply `{reply}` of the controller")]
    Parse { reply: String, source: serde_json::Error },
    #[error("the controller sent a reply of an unexpected kind")]
    Unexpected,
    #[error("the launcher did not report the state of the layers")]
    NoLayers,
    #[error(
        "a playbook could kill the controller, because this kernel lacks Landlock ABI 6 (Linux 6.12)"
    )]
    Unguarded,
    #[error("the controller was not ready within {}", humantime::format_duration(*timeout))]
    NotReady { timeout: Duration },
    #[error("the controller did not accept the run within {}", humantime::format_duration(*timeout))]
    NotTaken { timeout: Duration },
    #[error("the timeout of the run expired before the controller was ready")]
    Deadline,
    #[error("the run was cancelled")]
    Cancelled,
    #[error("the path `{path}` is not UTF-8")]
    NotUtf8 { path: PathBuf },
}

/// The reason why the daemon does not know how a run ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LostError {
    #[error("cannot wait for the end of the launcher")]
    Launcher(#[source] io::Error),
    #[error("lost the controller of the run")]
    Controller(#[from] ControllerError),
}

/// The reason why a message cannot be written as variables of a playbook.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum VariablesError {
    #[error("a key in the message has {length} characters, but the limit for playbooks is {max}")]
    KeyTooLong { length: usize, max: usize },
    #[error("a number in the message has {length} digits, but the limit for playbooks is {max}")]
    NumberTooLong { length: usize, max: usize },
    #[error("a number in the message is too large for a float: {digits}")]
    NumberTooLarge { digits: String },
}

impl PlaybookError {
    /// Returns a hint for the operator: how to resolve this error.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Runs { .. } | Self::Plugin { .. } => {
                "check the owner and the free space of the state directory"
            }
            Self::StatePath { .. } => "name another state directory with `--state`",
            Self::NoAnsible => {
                "install Ansible (`apt-get install ansible-core`), or set `ansible_playbook` under \
                 `[playbook]`"
            }
            Self::NoLauncher { .. } => {
                "build the launcher with `cargo build -p loopabull-launcher`, or set `launcher` under \
                 `[playbook]`"
            }
            Self::NoUser { .. } => {
                "create the user with `useradd --system`, or name a user as `UID:GID`"
            }
            Self::UserLookup { .. } => {
                "check the name services (`getent passwd NAME`), or name the user as `UID:GID`"
            }
            Self::NoLayer { .. } => "`loopabull-launch --help` lists the layers",
        }
    }
}
