//! The log in which each task records its start and its end. It is read while it grows.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// A log that is read while it grows.
pub(super) struct TaskLog {
    lines: BufReader<File>,
    /// The part of the last line that has been read. Empty if the line was complete.
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

    /// Reads the new lines.
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

    /// Returns the number of started tasks, including repetitions.
    pub(super) fn started(&self) -> u64 {
        self.started
    }

    /// Returns the number of ended tasks, including repetitions.
    pub(super) fn ended(&self) -> u64 {
        self.ended
    }

    /// Returns the time since the last activity.
    pub(super) fn quiet(&self) -> Duration {
        self.grown.elapsed()
    }

    /// Sets the time that [`TaskLog::quiet`] returns to zero, because of an activity that is not in the log.
    pub(super) fn wake(&mut self) {
        self.grown = Instant::now();
    }
}
