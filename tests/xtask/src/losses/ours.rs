//! loopabull-host in a bed: its files, and what its commands do and say.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::load::{TOPIC, WORKERS};
use crate::command::{command, output};
use crate::status;

/// Its defaults, but for the pause, for which nobody wants to wait, and for the breaker: a task that
/// is killed again and again is not a bad task here.
const MANIFEST: &str = "\
[retry]
pauses = [\"100ms\"]
max_attempts = 5

[breaker]
failures = 0
";

/// loopabull-host with its files.
pub(super) struct Ours {
    program: PathBuf,
    folder: PathBuf,
    /// Without one the queue is embedded.
    amqp_url: Option<String>,
}

impl Ours {
    /// Takes the folder where the programs are and that of the round.
    pub(super) fn new(binaries: &Path, folder: &Path, amqp_url: Option<String>) -> Self {
        Self { program: binaries.join("loopabull-host"), folder: folder.to_owned(), amqp_url }
    }

    /// Writes its configuration and its one playbook, which is for this program to play.
    pub(super) fn write_files(&self, ansible: &Path) -> io::Result<()> {
        let playbooks = self.folder.join("playbooks");
        fs::write(playbooks.join(format!("{TOPIC}.yml")), "- hosts: all\n")?;
        // The stand-in writes its log there.
        let log = ansible.parent().unwrap_or(Path::new("/")).display().to_string();
        let grant = format!("[[grants.dirs]]\nhost = {log:?}\naccess = \"read-write\"\n");
        fs::write(playbooks.join(format!("{TOPIC}.toml")), format!("{MANIFEST}\n{grant}"))?;
        // It may kill the daemon, which it has to see for that.
        let toml = format!(
            "[playbook]\nansible_playbook = {:?}\nwithout = [\"namespaces\", \"scopes\"]\n",
            ansible.display().to_string()
        );
        fs::write(self.folder.join("host.toml"), toml)
    }

    /// Returns the daemon.
    pub(super) fn daemon(&self) -> Command {
        let mut daemon = self.command();
        daemon.args(["--listen", "127.0.0.1:0", "--workers", &WORKERS.to_string()]);
        daemon
    }

    /// Returns what publishes the messages on its standard input.
    pub(super) fn inject(&self) -> Command {
        let mut inject = self.command();
        inject.args(["inject", "-"]);
        inject
    }

    /// Returns how many messages of the embedded queue are not settled, if the daemon says so.
    pub(super) fn unsettled(&self) -> Option<u64> {
        let mut status = self.command();
        // It fails if the daemon is in trouble, and tells all the same.
        let status = status.args(["status", "--json"]).stdin(Stdio::null()).output().ok()?;
        let status: Value = serde_json::from_slice(&status.stdout).ok()?;
        status::unsettled(&status)
    }

    /// Returns the messages that were set aside, each with its reason.
    pub(super) fn dead_letters(&self) -> Result<BTreeMap<String, String>> {
        let letters = output(self.command().args(["dead-letters", "list", "--json"]))?;
        let read = |line: &str| {
            let letter: Value = serde_json::from_str(line).context("a dead letter is no JSON")?;
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (id, reason) = (text(&letter["message"]["id"]), text(&letter["burial"]["reason"]));
            ensure!(!id.is_empty() && !reason.is_empty(), "a dead letter does not tell: {line}");
            Ok((id, reason))
        };
        letters.lines().map(read).collect()
    }

    /// Ends all pauses, as an operator would, and returns which there were.
    pub(super) fn resume(&self) -> Result<Vec<String>> {
        let said = output(self.command().args(["resume", "--all"]))?;
        let resumed = said.lines().filter_map(|line| line.strip_suffix(" is resumed"));
        Ok(resumed.map(str::to_owned).collect())
    }

    fn command(&self) -> Command {
        let mut host = command(&self.program);
        for (flag, name) in [
            ("--config", "host.toml"),
            ("--tasks", "tasks"),
            ("--playbooks", "playbooks"),
            ("--state", "host/state"),
        ] {
            host.arg(flag).arg(self.folder.join(name));
        }
        match &self.amqp_url {
            Some(url) => host.env("LOOPABULL_AMQP_URL", url),
            None => host.env_remove("LOOPABULL_AMQP_URL"),
        };
        host
    }
}
