//! What every round stands on: the programs, the messages and the playbook.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::ansible_rulebook::AnsibleRulebook;
use super::case::Case;
use super::cpu::Cpu;
use crate::interrupt::Interrupt;
use crate::repository;

/// The topic, routing key and playbook of every message.
pub(super) const TOPIC: &str = "org.example.prod.bench.run";
/// How many playbooks run at a time.
pub(super) const WORKERS: usize = 5;

/// The same for all; `msg` is a variable in each of them.
const PLAYBOOK: &str = "\
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - debug: {var: msg}
";

/// What is the same for all rounds.
pub(super) struct Bed {
    /// How many playbooks a round runs.
    pub(super) messages: u32,
    /// The real `ansible-playbook`.
    pub(super) ansible_playbook: PathBuf,
    /// The folder of our programs. Empty if none is measured.
    pub(super) binaries: PathBuf,
    /// A Python with loopabull. Empty if that is not measured.
    pub(super) python: PathBuf,
    /// None if it is not measured.
    pub(super) rulebook: Option<AnsibleRulebook>,
    pub(super) interrupt: Interrupt,
    pub(super) cpu: Cpu,
}

/// What one round took, for each run.
pub(super) struct Sample {
    pub(super) seconds: f64,
    pub(super) cpu_seconds: f64,
    /// What the reader should know beside it.
    pub(super) note: Option<String>,
}

/// A watch on the clock and on our children, from the start of the workers.
pub(super) struct Watch<'a> {
    cpu: &'a Cpu,
    start: Instant,
    cpu_before: Duration,
    took: Duration,
}

impl Bed {
    /// Makes a fresh folder for a round, with the playbook.
    pub(super) fn folder(&self, case: Case) -> Result<PathBuf> {
        let folder = repository::target().join("bench").join(case.slug());
        let cannot = || format!("cannot make a fresh `{}`", folder.display());
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(cannot)?;
        }
        fs::create_dir_all(folder.join("playbooks")).with_context(cannot)?;
        fs::write(playbook(&folder), PLAYBOOK).with_context(cannot)?;
        Ok(folder)
    }

    /// Returns how long a round may take.
    pub(super) fn limit(&self) -> Duration {
        Duration::from_secs(120 + 10 * u64::from(self.messages))
    }

    /// Starts the watch.
    pub(super) fn watch(&self) -> Result<Watch<'_>> {
        let cpu_before = self.cpu.children()?;
        Ok(Watch { cpu: &self.cpu, start: Instant::now(), cpu_before, took: Duration::ZERO })
    }
}

impl Watch<'_> {
    /// Stops the clock: the work is done.
    pub(super) fn is_done(&mut self) {
        self.took = self.start.elapsed();
    }

    /// Reads the processor time, once all workers have been waited for.
    pub(super) fn read(self, runs: u32) -> Result<Sample> {
        let cpu = self.cpu.children()?.saturating_sub(self.cpu_before);
        let runs = f64::from(runs);
        let (seconds, cpu_seconds) = (self.took.as_secs_f64() / runs, cpu.as_secs_f64() / runs);
        Ok(Sample { seconds, cpu_seconds, note: None })
    }
}

/// Returns where the playbook is.
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
    fn body_is_about_a_kilobyte() {
        let length = message(1)["msg"].to_string().len();
        assert!((900..1200).contains(&length), "{length}");
    }
}
