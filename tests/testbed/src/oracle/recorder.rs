//! A program that replaces `ansible-playbook` and records that it ran.
//!
//! `recorder.sh` is the program. This module adds its shell and the path of its log.
#![expect(clippy::disallowed_methods, reason = "tests start programs")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SCRIPT: &str = include_str!("recorder.sh");
/// The shell that can read the clock without another process.
const BASH: &str = "/bin/bash";

/// A program that replaces `ansible-playbook`. The daemon's setting `ansible_playbook` under
/// `[playbook]` names it.
///
/// It records its start, follows the instructions in the body of the message, and records its end.
/// The body is an object of less than four thousand characters. At its top level it can have
///
/// - `"sleep_ms": N`: the run takes this long;
/// - `"exit": N`: the program exits with this code instead of 0;
/// - `"kill": "before-end"`: it kills the daemon and itself, and records no end;
/// - `"kill": "after-end"`: it records its end and then kills the daemon;
/// - `"until": N`: after the Nth start for this message it neither kills nor fails.
///
/// It kills its ancestor `loopabull-host` if the names of all processes between them begin with
/// `loopabull`. To see and signal it, the daemon must leave out the layers `namespaces` and
/// `scopes`.
#[derive(Debug)]
pub struct Recorder;

impl Recorder {
    /// Writes the program into a folder and returns its path.
    ///
    /// # Panics
    ///
    /// If the folder cannot be written, or its path contains a quote or is not UTF-8.
    pub fn write(folder: &Path) -> PathBuf {
        let folder = folder.canonicalize().expect("the folder is there");
        let log = Self::log(&folder);
        let log = log.to_str().filter(|path| !path.contains('\'')).expect("a plain path");
        let shell = if Path::new(BASH).exists() { BASH } else { "/bin/sh" };
        let path = folder.join("recorder");
        // Another process writes the file. If it were open for writing here while another thread
        // starts a process, that process would inherit it, and a file that is open for writing
        // cannot be executed.
        let mut install = Command::new("install");
        install.args(["-m", "755", "/dev/stdin"]).arg(&path).stdin(Stdio::piped());
        let mut install = install.spawn().expect("coreutils are installed");
        let mut stdin = install.stdin.take().expect("it is piped");
        write!(stdin, "#!{shell}\nlog='{log}'\n{SCRIPT}").expect("it is read");
        drop(stdin);
        assert!(install.wait().is_ok_and(|status| status.success()), "a file in the folder");
        path
    }

    /// Returns the path of the log that the program in this folder writes.
    pub fn log(folder: &Path) -> PathBuf {
        folder.join("task.log")
    }
}
