//! The errors of this crate.
//!
//! A playbook that fails is an outcome and not an error. These are the failures of the machine and of
//! its configuration.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use loopabull_model::Outcome;

/// Why no playbook can be started on this machine.
#[derive(Debug, thiserror::Error)]
pub enum PlaybookError {
    #[error("cannot open the playbooks directory `{path}`")]
    Folder { path: PathBuf, source: io::Error },
    #[error("cannot make the directory `{path}`")]
    Runs { path: PathBuf, source: io::Error },
    #[error("cannot write `{path}`")]
    Plugin { path: PathBuf, source: io::Error },
    #[error(
        "no playbook can use the state directory `{path}`: its path has a colon or a line feed"
    )]
    StatePath { path: PathBuf },
    #[error("`ansible-playbook` is not on the PATH")]
    NoAnsible,
    #[error("cannot find the launcher `{path}`")]
    NoLauncher { path: PathBuf },
    #[error("`{name}` under `[playbook]` is not a user of this machine")]
    NoUser { name: String },
    #[error("cannot look up the user `{name}` under `[playbook]`")]
    UserLookup { name: String, source: io::Error },
    #[error("`{name}` under `[playbook]` is not a layer of a confinement")]
    NoLayer { name: String },
}

/// Why one playbook cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot make the directory `{path}`")]
    MakeDir { path: PathBuf, source: io::Error },
    #[error("cannot write `{path}`")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot open playbook `{name}`")]
    Open { name: String, source: io::Error },
    #[error("playbook `{name}` is not a file")]
    NotAFile { name: String },
    #[error("`{name}` is not inside the playbooks directory")]
    Outside { name: String },
    #[error("cannot find `{name}` in the playbooks directory")]
    Missing { name: String, source: io::Error },
    #[error("`{path}` is not a socket of an ssh agent")]
    NoAgent { path: PathBuf },
    #[error("`{name}` is not a layer of a confinement")]
    NoLayer { name: String },
    #[error("`{path}` is not a Python program")]
    NotPython { path: PathBuf },
    #[error("cannot start `{path}`")]
    Launch { path: PathBuf, source: io::Error },
}

/// Why a check of playbooks failed.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{outcome}\n{output}")]
    Playbook { outcome: Outcome, output: String },
    #[error("{outcome}")]
    Layers { outcome: Outcome },
}

/// Why a controller cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControllerError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("cannot make a socket or a pipe")]
    Pipe(#[source] io::Error),
    #[error("cannot send a command")]
    Send(#[source] io::Error),
    #[error("cannot receive a reply")]
    Receive(#[source] io::Error),
    #[error("its process has ended")]
    Ended,
    #[error("cannot parse its reply `{reply}`")]
    Parse { reply: String, source: serde_json::Error },
    #[error("its reply was not expected")]
    Unexpected,
    #[error("the launcher did not report its layers")]
    NoLayers,
    #[error("a run could kill it, which only Linux 6.12 and later can prevent")]
    Unguarded,
    #[error("it is not ready after {}", humantime::format_duration(*timeout))]
    NotReady { timeout: Duration },
    #[error("it did not accept the run within {}", humantime::format_duration(*timeout))]
    NotTaken { timeout: Duration },
    #[error("the deadline of the run passed before it was ready")]
    Deadline,
    #[error("the daemon is stopping")]
    Cancelled,
    #[error("the path `{path}` is not UTF-8")]
    NotUtf8 { path: PathBuf },
}

/// Why the end of a run could not be observed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LostError {
    #[error("cannot wait for the launcher")]
    Launcher(#[source] io::Error),
    #[error("the controller of the run was lost")]
    Controller(#[from] ControllerError),
}

/// Why a message cannot be given to a playbook.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum VariablesError {
    #[error("a key of the message has {length} characters, playbooks take at most {max}")]
    KeyTooLong { length: usize, max: usize },
    #[error("a number of the message has {length} digits, playbooks take at most {max}")]
    NumberTooLong { length: usize, max: usize },
    #[error("a number of the message is too large for a float: {digits}")]
    NumberTooLarge { digits: String },
    #[error("the key `{key}` of the body must not be a variable: Ansible has a meaning for it")]
    Reserved { key: String },
}

impl PlaybookError {
    /// Returns what the operator can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Folder { .. } => "make it, or name another one with `--playbooks`",
            Self::Runs { .. } | Self::Plugin { .. } => {
                "check the owner and the free space of the state directory"
            }
            Self::StatePath { .. } => "name another one with `--state`",
            Self::NoAnsible => {
                "install it (`apt-get install ansible-core`), or set `ansible_playbook` under \
                 `[playbook]`"
            }
            Self::NoLauncher { .. } => {
                "build it with `cargo build -p loopabull-launcher`, or set `launcher` under \
                 `[playbook]`"
            }
            Self::NoUser { .. } => "make it with `useradd --system`, or name one as `UID:GID`",
            Self::UserLookup { .. } => {
                "check the name services (`getent passwd NAME`), or name the user as `UID:GID`"
            }
            Self::NoLayer { .. } => "`loopabull-launch --help` lists the layers",
        }
    }
}

/// Returns an error and its sources as one line, joined by ": ".
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
