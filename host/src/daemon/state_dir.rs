//! The state directory: whose it is, and how other commands find its daemon.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::daemon::orphans;

/// How long a lock that is taken is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(2);
/// How often it is tried meanwhile.
const LOCK_TICK: Duration = Duration::from_millis(50);

/// How other commands find the daemon of a state directory: the file `daemon.json` in it.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Notice {
    pub pid: u32,
    pub listen: SocketAddr,
}

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
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
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::InUse { .. } => Some("give each daemon a directory of its own: `--state`"),
            _ => None,
        }
    }
}

impl Notice {
    /// Where the notice of a state directory is.
    pub(crate) fn path(state: &Path) -> PathBuf {
        state.join("daemon.json")
    }

    /// Writes the notice of this process, whole or not at all.
    pub(crate) fn write(state: &Path, listen: SocketAddr) -> Result<PathBuf, StateError> {
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
pub(crate) fn make(path: &Path) -> Result<(), StateError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| StateError::Make { path: path.to_owned(), source })
}

/// Makes this the one daemon of its state directory, for as long as the file is open.
///
/// Waits a moment for a lock that is taken: a process that a killed daemon was just starting holds it
/// until it has become the program that it is to be.
pub(crate) async fn lock(path: &Path) -> Result<File, StateError> {
    let path = path.to_owned();
    let cannot = |source| StateError::Lock { path: path.clone(), source };
    let file = File::create(path.join("daemon.lock")).map_err(cannot)?;
    let until = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                tokio::time::sleep(LOCK_TICK).await;
            }
            Err(TryLockError::WouldBlock) => return Err(StateError::InUse { path }),
            Err(TryLockError::Error(source)) => return Err(cannot(source)),
        }
    }
}

/// Ends what a daemon that was killed has left running, before its messages are run again.
pub(crate) fn sweep(path: &Path) -> Result<(), StateError> {
    orphans::sweep_tries(&path.join("tries"));
    let Ok(path) = path.join("runs").canonicalize() else { return Ok(()) };
    let killed = orphans::sweep(&path);
    let killed = killed.map_err(|source| StateError::Leftovers { path, source })?;
    if killed > 0 {
        tracing::warn!(
            "killed {killed} processes of playbooks that an earlier daemon left running"
        );
    }
    Ok(())
}
