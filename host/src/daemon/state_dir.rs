//! Creates and locks the state directory, and kills processes that an earlier daemon left running.
//!
//! Also writes the file `daemon.json`, from which commands read the address of the running daemon.
//! The other files in the directory belong to other modules, for example the journal and the
//! pauses.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::Mode;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::daemon::orphans;
use crate::modes;

/// Time to wait for a lock that another process holds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// Interval between attempts to lock.
const LOCK_INTERVAL: Duration = Duration::from_millis(50);

/// The content of `daemon.json` in the state directory, which commands read.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct DaemonFile {
    pub pid: u32,
    /// The address of the operator's port.
    pub listen: SocketAddr,
    /// What a command sends as its token to the socket.
    pub key: String,
}

/// The reason why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error("cannot create the state directory `{path}`")]
    Create { path: PathBuf, source: std::io::Error },
    #[error("the state directory `{path}` belongs to all users")]
    Shared { path: PathBuf },
    #[error("`{path}` is accessible to other users, and its mode cannot be changed")]
    Mode { path: PathBuf, source: io::Error },
    #[error("another daemon is using the state directory `{path}`")]
    InUse { path: PathBuf },
    #[error("cannot lock the state directory `{path}`")]
    Lock { path: PathBuf, source: std::io::Error },
    #[error("cannot kill orphaned playbook processes of `{path}`")]
    Orphans { path: PathBuf, source: std::io::Error },
    #[error("cannot read the daemon file `{path}`")]
    ReadDaemonFile { path: PathBuf, source: std::io::Error },
    #[error("cannot write the daemon file `{path}`")]
    DaemonFile { path: PathBuf, source: std::io::Error },
    #[error("cannot listen at the socket for commands in `{path}`")]
    Socket { path: PathBuf, source: std::io::Error },
}

impl StateError {
    /// Returns a hint for the operator.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::InUse { .. } => {
                Some("give each daemon its own state directory with `--state DIR`")
            }
            Self::Shared { .. } => Some(
                "name a directory of its own with `--state DIR`; if it is one, take the sticky bit from it with `chmod 0700`",
            ),
            Self::Mode { .. } => Some("give the state directory to the user of the daemon"),
            _ => None,
        }
    }
}

impl DaemonFile {
    /// Reads the file from a state directory. Returns none if the file is missing or invalid.
    ///
    /// # Errors
    ///
    /// If there is a state directory, and the caller may not read the file.
    pub(crate) fn read(state: &Path) -> Result<Option<Self>, StateError> {
        let path = Self::path(state);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(serde_json::from_str(&text).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateError::ReadDaemonFile { path, source }),
        }
    }

    fn path(state: &Path) -> PathBuf {
        state.join("daemon.json")
    }

    /// Makes the content for this process, with a new key.
    pub(crate) fn new(listen: SocketAddr) -> Self {
        let key = uuid::Uuid::new_v4().simple().to_string();
        Self { pid: std::process::id(), listen, key }
    }

    /// Removes the file.
    pub(crate) fn remove(state: &Path) {
        drop(fs::remove_file(Self::path(state)));
    }

    /// Writes the file atomically.
    pub(crate) fn write(&self, state: &Path) -> Result<(), StateError> {
        let path = Self::path(state);
        let text = serde_json::to_string(self).expect("a daemon file contains only JSON types");
        tempfile::NamedTempFile::new_in(state)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.persist(&path).map_err(|error| error.error)
            })
            .map(drop)
            .map_err(|source| StateError::DaemonFile { path, source })
    }
}

/// Creates the state directory if it is missing. The files that this process creates are accessible only to their
/// owner, whatever the umask is.
pub(crate) fn make(path: &Path) -> Result<(), StateError> {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| StateError::Create { path: path.to_owned(), source })
}

/// Makes the state directory and the files in it accessible only to their owner. If playbooks run as another user,
/// that user may enter the directory, but not list it.
///
/// # Errors
///
/// If the directory has the sticky bit, as `/tmp` has. If the directory or a file in it is accessible to others and
/// the mode cannot be changed.
pub(crate) fn restrict(config: &Config) -> Result<(), StateError> {
    let path = &config.state;
    if fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o1000 != 0) {
        return Err(StateError::Shared { path: path.clone() });
    }
    modes::restrict(&config.state, config.playbook.user.is_some())
        .map_err(|(path, source)| StateError::Mode { path, source })
}

/// Locks the state directory for this daemon until the returned file is closed.
///
/// If the lock is held, waits up to 2 s. A child process inherits the lock from the daemon and
/// holds it until its `execve`. So the lock can be held for a moment after the daemon was killed.
pub(crate) async fn lock(path: &Path) -> Result<File, StateError> {
    let path = path.to_owned();
    let cannot = |source| StateError::Lock { path: path.clone(), source };
    let file = File::create(path.join("daemon.lock")).map_err(cannot)?;
    let until = Instant::now() + LOCK_TIMEOUT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                tokio::time::sleep(LOCK_INTERVAL).await;
            }
            Err(TryLockError::WouldBlock) => return Err(StateError::InUse { path }),
            Err(TryLockError::Error(source)) => return Err(cannot(source)),
        }
    }
}

/// Returns true if a daemon holds the lock of a state directory.
pub(crate) fn is_locked(path: &Path) -> bool {
    let file = File::open(path.join("daemon.lock"));
    file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Kills the playbook processes that a killed daemon left running, before the messages of these
/// playbooks are processed again. Removes old directories that killed commands left in `tries`.
pub(crate) fn kill_orphans(path: &Path) -> Result<(), StateError> {
    orphans::remove_old_tries(&path.join("tries"));
    let Ok(path) = path.join("runs").canonicalize() else { return Ok(()) };
    let killed = orphans::kill_orphans(&path);
    let killed = killed.map_err(|source| StateError::Orphans { path, source })?;
    if killed > 0 {
        tracing::warn!("killed {killed} orphaned playbook processes of an earlier daemon");
    }
    Ok(())
}
