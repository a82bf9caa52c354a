//! The programs and the messages, which are the same in all rounds.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::options::Programs;
use crate::bench::cpu::Cpu;
use crate::bench::folder::empty_folder;
use crate::command::command;
use crate::install::{self, Need};
use crate::interrupt::Interrupt;
use crate::programs::{self, Profile};
use crate::repository;

/// The topic of all messages, to which the component `greet` subscribes.
pub(super) const TOPIC: &str = "org.example.prod.greeting.new";
/// The number of workers.
pub(super) const WORKERS: usize = 5;
/// The time limit of a round.
pub(super) const LIMIT: Duration = Duration::from_secs(300);

/// The settings and programs of all rounds.
pub(super) struct Setup {
    /// The number of messages in a round of a fast system.
    pub(super) messages: u32,
    /// The folder of `loopabull-host`.
    pub(super) binaries: PathBuf,
    /// The program of the raw limits.
    pub(super) raw: PathBuf,
    /// A Python that has the other systems. Empty if none of them is measured.
    pub(super) python: PathBuf,
    /// A Python that has fedmsg. Empty if nothing is signed.
    pub(super) fedmsg_python: PathBuf,
    pub(super) interrupt: Interrupt,
    pub(super) cpu: Cpu,
}

/// The result of one round.
pub(super) struct Sample {
    /// Messages per second.
    pub(super) rate: f64,
    /// Processor time of the measured program for each message, in microseconds, if it was measured.
    pub(super) cpu: Option<f64>,
    /// A note for the text below the table.
    pub(super) note: Option<String>,
}

impl Setup {
    /// Installs what is needed, and builds the programs.
    pub(super) fn prepare(programs: &Programs, needs: &[Need], messages: u32) -> Result<Self> {
        install::prepare(needs)?;
        let profile = if programs.debug { Profile::Debug } else { Profile::Release };
        Ok(Self {
            messages,
            binaries: programs::ours(programs.bin_dir.as_deref(), profile)?,
            raw: programs::raw_limits(programs.raw_limits.as_deref(), profile)?,
            python: PathBuf::new(),
            fedmsg_python: PathBuf::new(),
            interrupt: Interrupt::listen()?,
            cpu: Cpu::new()?,
        })
    }

    /// Creates an empty folder for a round, with the task `greet`.
    pub(super) fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = empty_folder(name)?;
        for name in ["greet.wasm", "greet.toml"] {
            let task = repository::tasks().join(name);
            fs::copy(&task, folder.join("tasks").join(name)).with_context(|| {
                format!("cannot copy `{}`; `cargo tasks` builds it", task.display())
            })?;
        }
        Ok(folder)
    }

    /// Returns the command `loopabull-host` for a folder, on the broker at `url` or with the embedded queue.
    pub(super) fn host(&self, folder: &Path, url: Option<&str>) -> Command {
        let mut host = command(self.binaries.join("loopabull-host"));
        let at = |name: &str| folder.join(name);
        host.arg("--tasks").arg(at("tasks")).arg("--playbooks").arg(at("playbooks"));
        host.arg("--state")
            .arg(at("state"))
            .env_remove("LOOPABULL_AMQP_URL")
            .env_remove("RUST_LOG");
        if let Some(url) = url {
            host.args(["--amqp-url", url]);
        }
        host
    }
}

/// Writes a file with one fedmsg message in each line, each of about a kilobyte. The numbers become their ids. Returns its path.
pub(super) fn write_messages(folder: &Path, numbers: Range<u32>) -> Result<PathBuf> {
    let path = folder.join("messages.json");
    let line = |number: u32| {
        let msg = json!({"from": "ann", "text": "x".repeat(900)});
        let id = format!("2026-{number:08}");
        json!({"topic": TOPIC, "msg_id": id, "timestamp": 1_790_000_000, "i": number, "msg": msg})
    };
    let lines: String = numbers.map(|number| format!("{}\n", line(number))).collect();
    fs::write(&path, lines).with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(path)
}
