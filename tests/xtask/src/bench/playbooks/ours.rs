//! The measurement of loopabull-host with its embedded queue.
//!
//! The progress is requested from the daemon's HTTP server ten times per second. Starting the command
//! `loopabull-host status` this often would change the result.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use ureq::Agent;

use super::case::Case;
use super::setup::{Sample, Setup, WORKERS, message};
use crate::bench::workers::Workers;
use crate::command::{command, output};
use crate::status;

/// The time limit for the daemon's answer to a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The programs and the files of a round.
struct Host {
    program: PathBuf,
    folder: PathBuf,
}

/// Runs the playbook for each message, with cold or warm starts.
pub(super) fn measure(setup: &Setup, case: Case) -> Result<Sample> {
    let folder = setup.folder(case)?;
    let host = Host { program: setup.binaries.join("loopabull-host"), folder };
    let cannot = || format!("cannot write `{}`", host.folder.display());
    let messages = host.write_files(setup, case).with_context(cannot)?;
    let queued = output(host.command().arg("inject").arg(messages))?;
    let expected = format!("{0} messages, {0} entries queued, 0 rejected", setup.messages);
    ensure!(queued == expected, "not all messages are queued: {queued}");

    let mut daemon = host.command();
    daemon.args(["--listen", "127.0.0.1:0", "--workers", &WORKERS.to_string()]);
    let agent = Agent::config_builder().timeout_global(Some(REQUEST_TIMEOUT)).build().into();
    let mut watch = setup.watch()?;
    let mut workers = Workers::default();
    workers.start(&daemon, Stdio::null(), host.folder.join("daemon.log"))?;
    workers
        .work_until(setup.limit(), &setup.interrupt, |_| Ok(host.unsettled(&agent) == Some(0)))?;
    watch.is_done();
    ensure!(workers.stop()?.iter().all(ExitStatus::success), "the daemon failed to stop cleanly");
    let sample = watch.read(setup.messages)?;
    Ok(Sample { note: host.judge(setup.messages)?, ..sample })
}

impl Host {
    /// Writes the configuration and a file of messages, and returns the path of this file.
    fn write_files(&self, setup: &Setup, case: Case) -> std::io::Result<PathBuf> {
        let ansible = setup.ansible_playbook.display().to_string();
        // The short names `cold` and `warm` of the cases are also the values of the setting `start`.
        let toml =
            format!("[playbook]\nansible_playbook = {ansible:?}\nstart = {:?}\n", case.slug());
        fs::write(self.folder.join("host.toml"), toml)?;
        let messages = self.folder.join("messages.json");
        let lines: String =
            (0..setup.messages).map(|number| format!("{}\n", message(number))).collect();
        fs::write(&messages, lines)?;
        Ok(messages)
    }

    /// Returns the number of unsettled messages, if the daemon reports it.
    fn unsettled(&self, agent: &Agent) -> Option<u64> {
        let notice = File::open(self.folder.join("state/daemon.json")).ok()?;
        let notice: Value = serde_json::from_reader(notice).ok()?;
        let url = format!("http://{}/api/v1/status", notice["listen"].as_str()?);
        let text = agent.get(url).call().ok()?.into_body().read_to_string().ok()?;
        status::unsettled(&serde_json::from_str(&text).ok()?)
    }

    /// Returns the counts of cold and warm starts. Returns an error if a message does not have exactly one
    /// successful run.
    fn judge(&self, messages: u32) -> Result<Option<String>> {
        // The limit is twice the expected number, so that repeated runs are listed too.
        let limit = messages.saturating_mul(2).to_string();
        let runs = output(self.command().args(["runs", "list", "--json", "--limit", &limit]))?;
        let (mut count, mut succeeded, mut starts) = (0, 0, BTreeMap::<String, u32>::new());
        for line in runs.lines() {
            let run: Value =
                serde_json::from_str(line).context("a line of `runs list` is not JSON")?;
            count += 1;
            succeeded += u32::from(run["outcome"]["outcome"] == "success");
            *starts.entry(start_of(&run)).or_default() += 1;
        }
        ensure!(
            count == messages && succeeded == messages,
            "{messages} messages, {count} runs, {succeeded} of them successful; see `{}`",
            self.folder.join("daemon.log").display()
        );
        let starts: Vec<String> = starts.iter().map(|(how, n)| format!("{n} {how}")).collect();
        Ok(Some(starts.join(", ")))
    }

    fn command(&self) -> Command {
        let mut host = command(&self.program);
        let at = |name: &str| self.folder.join(name);
        host.arg("--config").arg(at("host.toml")).arg("--tasks").arg(at("tasks"));
        host.arg("--playbooks").arg(at("playbooks")).arg("--state").arg(at("state"));
        host.env_remove("LOOPABULL_AMQP_URL");
        host
    }
}

/// Returns the kind of start of a run in the journal.
fn start_of(run: &Value) -> String {
    match (&run["playbook"], run["playbook"]["cold"].as_str()) {
        (Value::Null, _) => "unknown".to_owned(),
        (_, Some(reason)) => format!("cold ({reason})"),
        (_, None) => "warm".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_kind_of_start_is_read_from_a_run() {
        assert_eq!(start_of(&json!({"playbook": {"cold": null}})), "warm");
        assert_eq!(start_of(&json!({"playbook": {"cold": "first"}})), "cold (first)");
        assert_eq!(start_of(&json!({"playbook": null})), "unknown");
    }
}
