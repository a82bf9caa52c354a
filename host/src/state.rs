//! The state directory: whose it is, and how other commands find its daemon.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::leftovers;

/// How other commands find the daemon of a state directory: the file `daemon.json` in it.
#[derive(Debug, Deserialize, Serialize)]
pub struct Notice {
    pub pid: u32,
    pub listen: SocketAddr,
}

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("cannot make the state directory `{path}`")]
    Make { path: PathBuf, source: std::io::Error },
    #[error("another daemon uses the state directory `{path}`")]
    InUse { path: PathBuf },
    #[error("cannot lock the state directory `{path}`")]
    Lock { path: PathBuf, source: std::io::Error },
    #[error("cannot clear what an earlier daemon left in `{path}`")]
    Leftovers { path: PathBuf, source: std::io::Error },
    #[error("cannot write `{path}`")]
    Notice { path: PathBuf, source: std::io::Error },
}

impl StateError {
    /// Returns what the operator can do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::InUse { .. } => Some("give each daemon a directory of its own: `--state`"),
            _ => None,
        }
    }
}

impl Notice {
    /// Where the notice of a state directory is.
    pub fn path(state: &Path) -> PathBuf {
        state.join("daemon.json")
    }

    /// Writes the notice of this process, whole or not at all.
    pub fn write(state: &Path, listen: SocketAddr) -> Result<PathBuf, StateError> {
        let path = Self::path(state);
        let notice = Self { pid: std::process::id(), listen };
        let text = serde_json::to_string(&notice).expect("a notice is made of JSON types");
        tempfile::NamedTempFile::new_in(state)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.persist(&path).map_err(|error| error.error)
            })
            .map(|_| path.clone())
            .map_err(|source| StateError::Notice { path, source })
    }
}

/// Makes the state directory, which only its owner can look into.
pub fn make(path: &Path) -> Result<(), StateError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| StateError::Make { path: path.to_owned(), source })
}

/// Makes this the one daemon of its state directory, for as long as the file is open.
pub fn lock(path: &Path) -> Result<File, StateError> {
    let path = path.to_owned();
    match File::create(path.join("daemon.lock")).map(|file| (file.try_lock(), file)) {
        Ok((Ok(()), file)) => Ok(file),
        Ok((Err(TryLockError::WouldBlock), _)) => Err(StateError::InUse { path }),
        Ok((Err(TryLockError::Error(source)), _)) | Err(source) => {
            Err(StateError::Lock { path, source })
        }
    }
}

/// Ends what a daemon that was killed has left running, before its messages are run again.
pub fn sweep(path: &Path) -> Result<(), StateError> {
    let Ok(path) = path.join("runs").canonicalize() else { return Ok(()) };
    let killed = leftovers::sweep(&path);
    let killed = killed.map_err(|source| StateError::Leftovers { path, source })?;
    if killed > 0 {
        tracing::warn!(
            "killed {killed} processes of playbooks that an earlier daemon left running"
        );
    }
    Ok(())
}
