//! Why playbooks cannot be started here.

use std::io;
use std::path::PathBuf;

/// Why playbooks cannot be started here.
#[derive(Debug, thiserror::Error)]
pub enum PlaybookError {
    #[error("cannot open the playbooks directory `{path}`")]
    Folder { path: PathBuf, source: io::Error },
    #[error("cannot make the directory `{path}`")]
    Runs { path: PathBuf, source: io::Error },
    #[error("cannot write `{path}`")]
    Plugin { path: PathBuf, source: io::Error },
    #[error("no playbook can use the state directory `{}`: its path has a colon or a new line", path.display())]
    StatePath { path: PathBuf },
    #[error("`ansible-playbook` is not on the PATH")]
    NoAnsible,
    #[error("cannot find the launcher `{path}`")]
    NoLauncher { path: PathBuf },
    #[error("`{name}` under `[playbook]` is no user of this machine")]
    NoUser { name: String },
    #[error("`{name}` under `[playbook]` is no layer of a confinement")]
    NoLayer { name: String },
}

impl PlaybookError {
    /// Returns what the operator can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Folder { .. } => "make it, or name another with `--playbooks`",
            Self::Runs { .. } | Self::Plugin { .. } => {
                "look at the owner and the free space of the state directory"
            }
            Self::StatePath { .. } => "name another with `--state`",
            Self::NoAnsible => {
                "install it (`apt-get install ansible-core`), or set `ansible_playbook` under \
                 `[playbook]`"
            }
            Self::NoLauncher { .. } => {
                "build it with `cargo build -p loopabull-launcher`, or set `launcher` under \
                 `[playbook]`"
            }
            Self::NoUser { .. } => "make it with `useradd --system`, or name one as `UID:GID`",
            Self::NoLayer { .. } => "`loopabull-launch --help` names the layers",
        }
    }
}
