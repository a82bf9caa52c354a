//! The socket in the state directory, at which commands reach the daemon.
//!
//! Only the user of the daemon and root can connect. A playbook of a machine without namespaces runs as that user too and could
//! connect, so a request also needs the key in `daemon.json`, which Landlock hides from playbooks.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use tokio::net::UnixStream;

const FILE: &str = "daemon.sock";

/// Listens at the socket of a state directory, which this process has locked. Replaces the socket of an earlier daemon.
pub(crate) fn bind(state: &Path) -> io::Result<UnixListener> {
    let (_folder, path) = short_path(state)?;
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => (),
    }
    // Until then, the umask of the daemon keeps other users out.
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Removes the socket of a state directory.
pub(crate) fn remove(state: &Path) {
    drop(fs::remove_file(state.join(FILE)));
}

/// Connects to the daemon of a state directory. Fails at once if too many others wait for it.
pub(crate) async fn connect(state: &Path) -> io::Result<UnixStream> {
    let (_folder, path) = short_path(state)?;
    UnixStream::connect(path).await
}

/// Returns a path of the socket that is short whatever the path of the directory is, because the path of a socket has at most 107
/// bytes: unix(7). It is valid as long as the returned file is open.
fn short_path(state: &Path) -> io::Result<(File, PathBuf)> {
    let folder = File::open(state)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(FILE);
    Ok((folder, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_long_path_is_no_obstacle_and_an_old_socket_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let state = root.path().join("x".repeat(200));
        crate::daemon::state_dir::make(&state).unwrap();
        for _ in 0..2 {
            let listener = bind(&state).unwrap();
            connect(&state).await.unwrap();
            listener.accept().unwrap();
            let mode = fs::metadata(state.join(FILE)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(connect(&state).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    /// A daemon that hangs accepts no connections, so at some time no more of them can wait.
    #[tokio::test]
    async fn a_full_queue_of_connections_is_an_error() {
        let state = tempfile::tempdir().unwrap();
        let _listener = bind(state.path()).unwrap();
        let mut waiting = Vec::new();
        let error = loop {
            match connect(state.path()).await {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
