//! The programs, the messages and the playbook, which are the same in all rounds.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::ansible_rulebook::AnsibleRulebook;
use super::case::Case;
use crate::bench::cpu::Cpu;
use crate::bench::folder::empty_folder;
use crate::interrupt::Interrupt;

/// The topic, routing key and playbook of every message.
pub(super) const TOPIC: &str = "org.example.prod.bench.run";
/// The number of playbooks that run at a time.
pub(super) const WORKERS: usize = 5;

/// The playbook of all cases. Each case sets the variable `msg`.
const PLAYBOOK: &str = "\
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - debug: {var: msg}
";

/// The settings and programs of all rounds.
pub(super) struct Setup {
    /// The number of playbooks in a round.
    pub(super) messages: u32,
    /// The real `ansible-playbook`.
    pub(super) ansible_playbook: PathBuf,
    /// The folder of `loopabull-host` and `loopabull-launch`. Empty if neither of them is measured.
    pub(super) binaries: PathBuf,
    /// A Python that has the Python loopabull. Empty if loopabull is not measured.
    pub(super) python: PathBuf,
    /// The programs of ansible-rulebook. `None` if ansible-rulebook is not measured.
    pub(super) rulebook: Option<AnsibleRulebook>,
    pub(super) interrupt: Interrupt,
    pub(super) cpu: Cpu,
}

/// The result of one round: the mean duration and the mean processor time of a run.
pub(super) struct Sample {
    pub(super) seconds: f64,
    pub(super) cpu_seconds: f64,
    /// A note for the text below the table.
    pub(super) note: Option<String>,
}

/// A stopwatch for the duration and the processor time of a round. It is started before the workers.
pub(super) struct Watch<'a> {
    cpu: &'a Cpu,
    start: Instant,
    cpu_before: Duration,
    took: Duration,
}

impl Setup {
    /// Creates an empty folder for a round, with the playbook.
    pub(super) fn folder(&self, case: Case) -> Result<PathBuf> {
        let folder = empty_folder(case.slug())?;
        let path = playbook(&folder);
        fs::write(&path, PLAYBOOK).with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(folder)
    }

    /// Returns the time limit of a round.
    pub(super) fn limit(&self) -> Duration {
        Duration::from_secs(120 + 10 * u64::from(self.messages))
    }

    /// Starts the stopwatch.
    pub(super) fn watch(&self) -> Result<Watch<'_>> {
        let cpu_before = self.cpu.children()?;
        Ok(Watch { cpu: &self.cpu, start: Instant::now(), cpu_before, took: Duration::ZERO })
    }
}

impl Watch<'_> {
    /// Stops the clock when the last playbook is done.
    pub(super) fn is_done(&mut self) {
        self.took = self.start.elapsed();
    }

    /// Returns the result. All workers must have been waited for.
    pub(super) fn read(self, runs: u32) -> Result<Sample> {
        let cpu = self.cpu.children()?.saturating_sub(self.cpu_before);
        let runs = f64::from(runs);
        let (seconds, cpu_seconds) = (self.took.as_secs_f64() / runs, cpu.as_secs_f64() / runs);
        Ok(Sample { seconds, cpu_seconds, note: None })
    }
}

/// Returns the path of the playbook.
pub(super) fn playbook(folder: &Path) -> PathBuf {
    folder.join("playbooks").join(format!("{TOPIC}.yml"))
}

/// Returns a message with about 1 KB of body.
pub(super) fn message(number: u32) -> Value {
    let packages: Vec<Value> = (0..12)
        .map(|n| json!({"name": format!("package-{n:02}"), "version": "1.2.3-4.fc43", "epoch": n}))
        .collect();
    json!({
        "topic": TOPIC,
        "msg_id": format!("2026-{number:08}"),
        "timestamp": 1_790_000_000 + number,
        "i": number,
        "msg": {
            "build": {"id": number, "state": "complete", "owner": "releng", "arch": "x86_64"},
            "packages": packages,
            "log": "lorem ipsum dolor sit amet ".repeat(8),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_body_has_about_a_kilobyte() {
        let length = message(1)["msg"].to_string().len();
        assert!((900..1200).contains(&length), "{length}");
    }
}
