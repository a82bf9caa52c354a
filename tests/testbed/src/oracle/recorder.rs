//! A program that stands in for `ansible-playbook` and writes down that it ran.
//!
//! What it does is in `recorder.sh`; here it gets its shell and the path of its log.
#![expect(clippy::disallowed_methods, reason = "tests start programs")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SCRIPT: &str = include_str!("recorder.sh");
/// The one that knows the time without another process.
const BASH: &str = "/bin/bash";

/// A program that stands in for `ansible-playbook`, named to the daemon as `ansible_playbook`
/// under `[playbook]`.
///
/// It records its start, does what the body of the message says, and records its end. The body is
/// an object of less than four thousand characters that may have at its top level
///
/// - `"sleep_ms": N`: it takes that long;
/// - `"exit": N`: it ends with this code, and not with 0;
/// - `"kill": "before-end"`: it kills the daemon and itself, and there is no record of an end;
/// - `"kill": "after-end"`: it records its end and then kills the daemon;
/// - `"until": N`: after the Nth start for this message it neither kills nor fails.
///
/// It kills an ancestor named `loopabull-host` if all between are named `loopabull...`. For that it must
/// see and be allowed to signal it: the daemon leaves out the layers `namespaces` and `scopes`.
#[derive(Debug)]
pub struct Recorder;

impl Recorder {
    /// Writes the program into a folder and returns its path.
    ///
    /// # Panics
    ///
    /// If the folder cannot be written, or its path has a quote or is not UTF-8.
    pub fn write(folder: &Path) -> PathBuf {
        let folder = folder.canonicalize().expect("the folder is there");
        let log = Self::log(&folder);
        let log = log.to_str().filter(|path| !path.contains('\'')).expect("a plain path");
        let shell = if Path::new(BASH).exists() { BASH } else { "/bin/sh" };
        let path = folder.join("recorder");
        // Another process writes it: were the file open for writing here while some thread starts
        // a process, that would have it open, too, and nobody can execute what is being written.
        let mut install = Command::new("install");
        install.args(["-m", "755", "/dev/stdin"]).arg(&path).stdin(Stdio::piped());
        let mut install = install.spawn().expect("coreutils are installed");
        let mut stdin = install.stdin.take().expect("it is piped");
        write!(stdin, "#!{shell}\nlog='{log}'\n{SCRIPT}").expect("it is read");
        drop(stdin);
        assert!(install.wait().is_ok_and(|status| status.success()), "a file in the folder");
        path
    }

    /// Returns where the program in this folder writes its log.
    pub fn log(folder: &Path) -> PathBuf {
        folder.join("task.log")
    }
}
