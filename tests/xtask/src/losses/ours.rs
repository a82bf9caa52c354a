//! The files and commands of loopabull-host in a round.

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

/// The manifest. It shortens the delay before a retry. It also switches the circuit breaker off, because the
/// task fails only by being killed.
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
    /// The URL of RabbitMQ. `None` for the embedded queue.
    amqp_url: Option<String>,
}

impl Ours {
    /// Returns loopabull-host with the folder of the programs and the folder of the round.
    pub(super) fn new(binaries: &Path, folder: &Path, amqp_url: Option<String>) -> Self {
        Self { program: binaries.join("loopabull-host"), folder: folder.to_owned(), amqp_url }
    }

    /// Writes the configuration and the only playbook. `ansible` is the program that runs it.
    pub(super) fn write_files(&self, ansible: &Path) -> io::Result<()> {
        let playbooks = self.folder.join("playbooks");
        fs::write(playbooks.join(format!("{TOPIC}.yml")), "- hosts: all\n")?;
        // The program that replaces `ansible-playbook` writes its log into its own folder, so this folder is
        // granted.
        let log = ansible.parent().unwrap_or(Path::new("/")).display().to_string();
        let grant = format!("[[grants.dirs]]\nhost = {log:?}\naccess = \"read-write\"\n");
        fs::write(playbooks.join(format!("{TOPIC}.toml")), format!("{MANIFEST}\n{grant}"))?;
        // The program that replaces `ansible-playbook` must be able to find and kill the daemon. The layers
        // `namespaces` and `scopes` would hide the daemon, so they are off.
        let toml = format!(
            "[playbook]\nansible_playbook = {:?}\nwithout = [\"cgroup\", \"namespaces\", \"scopes\"]\n",
            ansible.display().to_string()
        );
        fs::write(self.folder.join("host.toml"), toml)
    }

    /// Returns the command of the daemon.
    pub(super) fn daemon(&self) -> Command {
        let mut daemon = self.command();
        daemon.args(["--listen", "127.0.0.1:0", "--workers", &WORKERS.to_string()]);
        daemon
    }

    /// Returns the command that publishes the messages on its standard input.
    pub(super) fn inject(&self) -> Command {
        let mut inject = self.command();
        inject.args(["inject", "-"]);
        inject
    }

    /// Returns the number of unsettled messages in the embedded queue, if the daemon reports it.
    pub(super) fn unsettled(&self) -> Option<u64> {
        let mut status = self.command();
        // The exit status is ignored: if the daemon has a problem, the command prints the status and fails.
        let status = status.args(["status", "--json"]).stdin(Stdio::null()).output().ok()?;
        let status: Value = serde_json::from_slice(&status.stdout).ok()?;
        status::unsettled(&status)
    }

    /// Returns the dead letters by the ids of their messages, each with its reason.
    pub(super) fn dead_letters(&self) -> Result<BTreeMap<String, String>> {
        let letters = output(self.command().args(["dead-letters", "list", "--json"]))?;
        let read = |line: &str| {
            let letter: Value = serde_json::from_str(line).context("a dead letter is not JSON")?;
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (id, reason) = (text(&letter["message"]["id"]), text(&letter["death"]["reason"]));
            ensure!(
                !id.is_empty() && !reason.is_empty(),
                "a dead letter has no message id or no reason: {line}"
            );
            Ok((id, reason))
        };
        letters.lines().map(read).collect()
    }

    /// Ends all pauses, as an operator would, and returns the names of the paused tasks and queues.
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
