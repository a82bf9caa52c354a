//! The protocol of a controller: JSON objects, one a line, over a stream socket.
//!
//! Owns the daemon's end of it. The doc comment of `controller.py` describes both directions.

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
    /// Fork the run that was taken.
    Go,
    /// Send SIGTERM to the process group of the run.
    Stop,
    /// Send SIGKILL to everything.
    Kill,
}

/// A reply of a controller.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reply {
    /// It has imported Ansible.
    Ready {
        /// How runs are kept from signalling the controller.
        guard: String,
        /// Paths that make the controller outdated when they change.
        watch: Vec<PathBuf>,
    },
    /// It has received a run and has not forked it yet.
    Taken {},
    /// The run and everything that it started has ended.
    Ended {
        exit: Option<i32>,
        signal: Option<i32>,
        killed: usize,
        /// Names everything that the run changed for the next one. Empty if there is nothing.
        spent: String,
    },
}

impl Connection {
    /// Makes a connection. Returns the controller's end of it too.
    pub(crate) fn pair() -> io::Result<(Self, StdStream)> {
        let (commands, theirs) = StdStream::pair()?;
        commands.set_nonblocking(true)?;
        let replies = BufReader::new(UnixStream::from_std(commands.try_clone()?)?);
        Ok((Self { commands, replies, line: Vec::new() }, theirs))
    }

    /// Sends a run: the arguments of Ansible, its working directory, and the descriptors of its output,
    /// its errors and its results.
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

    /// Receives a reply. If this is dropped, the part of a line that was read is kept.
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

/// Returns a path as the protocol has it.
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
        assert_eq!(error, "cannot parse its reply `oops`");
        drop(theirs);
        assert!(matches!(connection.receive().await, Err(ControllerError::Ended)));
    }
}
