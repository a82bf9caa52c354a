//! The log of the tasks while it grows.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// A log that is read as far as it goes.
pub(super) struct TaskLog {
    lines: BufReader<File>,
    /// What stands there of a line that is not whole.
    rest: String,
    started: u64,
    ended: u64,
    grown: Instant,
}

impl TaskLog {
    /// Opens a log.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let (lines, grown) = (BufReader::new(file), Instant::now());
        Ok(Self { lines, rest: String::new(), started: 0, ended: 0, grown })
    }

    /// Reads what is new.
    pub(super) fn read_on(&mut self) -> Result<()> {
        while self.lines.read_line(&mut self.rest).context("cannot read the log of the tasks")? > 0
        {
            if !self.rest.ends_with('\n') {
                break;
            }
            self.started += u64::from(self.rest.starts_with("start "));
            self.ended += u64::from(self.rest.starts_with("end "));
            self.rest.clear();
            self.grown = Instant::now();
        }
        Ok(())
    }

    /// Returns how many tasks have been started, repetitions included.
    pub(super) fn started(&self) -> u64 {
        self.started
    }

    /// Returns how many tasks have ended, repetitions included.
    pub(super) fn ended(&self) -> u64 {
        self.ended
    }

    /// Returns for how long nothing has happened.
    pub(super) fn quiet(&self) -> Duration {
        self.grown.elapsed()
    }

    /// Says that something has happened that the log does not show.
    pub(super) fn wake(&mut self) {
        self.grown = Instant::now();
    }
}
