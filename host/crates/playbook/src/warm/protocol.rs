//! The protocol between the daemon and a controller: one JSON object on each line, over a stream socket.
//!
//! This module is the daemon's end of the socket. The docstring of `controller.py` describes the messages in
//! both directions.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};

use loopabull_launcher::send;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::UnixStream;

use crate::error::ControllerError;

/// The maximum length of a reply, in bytes.
pub(crate) const MAX_LINE: u64 = 1 << 20;

/// The connection to a controller.
#[derive(Debug)]
pub(crate) struct Connection {
    commands: StdStream,
    replies: BufReader<UnixStream>,
    line: Vec<u8>,
}

/// A command without arguments.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Command {
    /// Fork the process of the run that the controller has accepted.
    Go,
    /// Send SIGTERM to the process group of the run.
    Stop,
    /// Send SIGKILL to all processes of the run.
    Kill,
}

/// A reply of a controller.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reply {
    /// The controller has imported Ansible.
    Ready {
        /// The mechanism that keeps a run from killing the controller: `landlock` or `dumpable`.
        guard: String,
        /// The paths that make the controller out of date when they change.
        watch: Vec<PathBuf>,
    },
    /// The controller has accepted a run and has not forked its process yet.
    Taken {},
    /// All processes of the run have ended.
    Ended {
        exit: Option<i32>,
        signal: Option<i32>,
        killed: usize,
        /// The names of everything that the run changed in the controller's process or namespaces. Empty if
        /// the controller can serve another run.
        spent: String,
    },
}

impl Connection {
    /// Creates a connection. Also returns the controller's end of the socket.
    pub(crate) fn pair() -> io::Result<(Self, StdStream)> {
        let (commands, theirs) = StdStream::pair()?;
        commands.set_nonblocking(true)?;
        let replies = BufReader::new(UnixStream::from_std(commands.try_clone()?)?);
        Ok((Self { commands, replies, line: Vec::new() }, theirs))
    }

    /// Sends a run: the arguments and the working directory of `ansible-playbook`, and the file descriptors
    /// of its standard output, its standard error and its results.
    pub(crate) fn send_run(
        &self,
        arguments: &[&str],
        directory: &str,
        descriptors: [BorrowedFd<'_>; 3],
    ) -> io::Result<()> {
        let run = serde_json::json!({
            "run": { "arguments": arguments, "directory": directory },
        });
        send(&self.commands, format!("{run}\n").as_bytes(), &descriptors)
    }

    /// Sends a command.
    pub(crate) fn send(&self, command: Command) -> Result<(), ControllerError> {
        let line: &[u8] = match command {
            Command::Go => b"{\"go\": true}\n",
            Command::Stop => b"{\"stop\": true}\n",
            Command::Kill => b"{\"kill\": true}\n",
        };
        send(&self.commands, line, &[]).map_err(ControllerError::Send)
    }

    /// Receives a reply. If the future is dropped, the next call continues with the bytes read so far.
    pub(crate) async fn receive(&mut self) -> Result<Reply, ControllerError> {
        let mut replies = (&mut self.replies).take(MAX_LINE);
        replies.read_until(b'\n', &mut self.line).await.map_err(ControllerError::Receive)?;
        let line = std::mem::take(&mut self.line);
        if !line.ends_with(b"\n") {
            return Err(ControllerError::Ended);
        }
        let text = String::from_utf8_lossy(&line);
        serde_json::from_str(&text).map_err(|source| ControllerError::Parse {
            reply: text.trim_end().escape_debug().to_string(),
            source,
        })
    }
}

/// Returns a path as UTF-8 text, which JSON needs.
pub(crate) fn text(path: &Path) -> Result<&str, ControllerError> {
    path.to_str().ok_or_else(|| ControllerError::NotUtf8 { path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn a_reply_that_is_not_one_is_quoted() {
        let (mut connection, mut theirs) = Connection::pair().unwrap();
        theirs.write_all(b"{\"taken\":{}}\noops\n").unwrap();
        assert!(matches!(connection.receive().await, Ok(Reply::Taken {})));
        let error = connection.receive().await.unwrap_err().to_string();
        assert_eq!(error, "cannot parse the reply `oops` of the controller");
        drop(theirs);
        assert!(matches!(connection.receive().await, Err(ControllerError::Ended)));
    }
}
