//! A program that replaces `ansible-playbook` and records that it ran.
//!
//! The program is the shell script `recorder.sh`. This module adds the first line, which names the shell, and
//! the path of the log.
#![expect(clippy::disallowed_methods, reason = "tests start programs")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SCRIPT: &str = include_str!("recorder.sh");
/// The preferred shell. It can read the clock without starting a process.
const BASH: &str = "/bin/bash";

/// A program that replaces `ansible-playbook`. The daemon starts it if `ansible_playbook` under `[playbook]`
/// names it.
///
/// The program records its start, follows the instructions in the body of the message, and records its end.
/// The body is an object of less than four thousand characters. At its top level it can have
///
/// - `"sleep_ms": N`: the run takes this long;
/// - `"exit": N`: the program exits with this code instead of 0;
/// - `"kill": "before-end"`: the program kills the daemon and itself, and records no end;
/// - `"kill": "after-end"`: the program records its end and then kills the daemon;
/// - `"until": N`: after the Nth start for this message the program neither kills nor fails.
///
/// The daemon that is killed is the ancestor `loopabull-host`. The names of all processes between it and the
/// program must begin with `loopabull`. The layers `namespaces` and `scopes` would hide the daemon from the
/// program, so the daemon must run without them.
#[derive(Debug)]
pub struct Recorder;

impl Recorder {
    /// Writes the program into a folder and returns its path.
    ///
    /// # Panics
    ///
    /// If the folder cannot be written, or its path contains a quote or is not UTF-8.
    pub fn write(folder: &Path) -> PathBuf {
        let folder = folder.canonicalize().expect("the folder exists");
        let log = Self::log(&folder);
        let log = log
            .to_str()
            .filter(|path| !path.contains('\''))
            .expect("the path is UTF-8 without a quote");
        let shell = if Path::new(BASH).exists() { BASH } else { "/bin/sh" };
        let path = folder.join("recorder");
        // The program `install` writes the file. If this process opened the file itself, a child process that
        // another thread starts at that moment could inherit the open file. A file that is open for writing
        // cannot be executed.
        let mut install = Command::new("install");
        install.args(["-m", "755", "/dev/stdin"]).arg(&path).stdin(Stdio::piped());
        let mut install = install.spawn().expect("coreutils are installed");
        let mut stdin = install.stdin.take().expect("standard input is piped");
        write!(stdin, "#!{shell}\nlog='{log}'\n{SCRIPT}").expect("`install` reads its input");
        drop(stdin);
        assert!(
            install.wait().is_ok_and(|status| status.success()),
            "`install` cannot write the recorder"
        );
        path
    }

    /// Returns the path of the log that the program in this folder writes.
    pub fn log(folder: &Path) -> PathBuf {
        folder.join("task.log")
    }
}
