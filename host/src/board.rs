//! The board: what the daemon is doing right now, for `status`, `/status` and `/readyz`.
//!
//! Owns the only state that many parts write. Each call takes the lock for a moment, and none is
//! held over an `await`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use loopabull_model::Run;
use loopabull_queue::{Delivery, Depth};
use serde::{Deserialize, Serialize};

/// What the daemon is doing right now.
#[derive(Debug, Default)]
pub struct Board {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    workers: BTreeMap<u32, Option<(Work, Instant)>>,
    sources: BTreeMap<String, (u64, Option<Instant>)>,
    counts: Counts,
    /// What does not work, by whom.
    troubles: BTreeMap<String, String>,
}

/// What the daemon says of itself, as JSON at `/status`.
#[derive(Debug, Deserialize, Serialize)]
pub struct Status {
    pub workers: Vec<WorkerStatus>,
    pub sources: Vec<SourceStatus>,
    pub queue: Option<QueueStatus>,
    pub counts: Counts,
    pub troubles: Vec<String>,
}

/// One worker and what it runs.
#[derive(Debug, Deserialize, Serialize)]
pub struct WorkerStatus {
    pub number: u32,
    pub work: Option<Work>,
    pub seconds: Option<u64>,
}

/// What a worker runs.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Work {
    pub task: String,
    pub message_id: String,
    pub attempt: u32,
}

/// One source and its last message.
#[derive(Debug, Deserialize, Serialize)]
pub struct SourceStatus {
    pub name: String,
    pub received: u64,
    pub seconds_since_last: Option<u64>,
}

/// How full the queue is.
#[derive(Debug, Deserialize, Serialize)]
pub struct QueueStatus {
    pub waiting: u64,
    pub claimed: Option<u64>,
    pub dead: u64,
    pub oldest_seconds: Option<u64>,
}

/// What has happened since the start.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct Counts {
    pub accepted: u64,
    pub rejected: u64,
    pub unrouted: u64,
    pub runs: u64,
    pub succeeded: u64,
}

impl Board {
    /// Sets up the workers, all idle.
    pub fn add_workers(&self, count: u32) {
        self.state().workers.extend((1..=count).map(|number| (number, None)));
    }

    /// Sets up a source, which has received nothing yet.
    pub fn add_source(&self, name: &str) {
        self.state().sources.insert(name.to_owned(), (0, None));
    }

    /// Notes that something came from a source.
    pub fn receive(&self, source: &str) {
        if let Some((count, last)) = self.state().sources.get_mut(source) {
            *count += 1;
            *last = Some(Instant::now());
        }
    }

    /// Changes the counts.
    pub fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.state().counts);
    }

    /// Counts a run.
    pub fn count_run(&self, run: &Run) {
        self.count(|counts| {
            counts.runs += 1;
            counts.succeeded += u64::from(run.outcome.is_success());
        });
    }

    /// Notes what a worker runs.
    pub fn start(&self, worker: u32, delivery: &Delivery) {
        let work = Work {
            task: delivery.task.to_string(),
            message_id: delivery.message.id.to_string(),
            attempt: delivery.attempt,
        };
        self.state().workers.insert(worker, Some((work, Instant::now())));
    }

    /// Notes that a worker is idle.
    pub fn finish(&self, worker: u32) {
        self.state().workers.insert(worker, None);
    }

    /// Notes that something does not work.
    pub fn set_trouble(&self, who: &str, what: &str) {
        self.state().troubles.insert(who.to_owned(), what.to_owned());
    }

    /// Notes that it works again.
    pub fn clear_trouble(&self, who: &str) {
        self.state().troubles.remove(who);
    }

    /// Returns what does not work, a line each. Empty if the daemon is ready.
    pub fn troubles(&self) -> Vec<String> {
        self.state().troubles.iter().map(|(who, what)| format!("{who}: {what}")).collect()
    }

    /// Returns everything, with the depth of the queue if it could be had.
    pub fn status(&self, depth: Option<Depth>) -> Status {
        let troubles = self.troubles();
        let state = self.state();
        Status {
            workers: state
                .workers
                .iter()
                .map(|(&number, work)| WorkerStatus {
                    number,
                    work: work.as_ref().map(|(work, _)| work.clone()),
                    seconds: work.as_ref().map(|(_, since)| since.elapsed().as_secs()),
                })
                .collect(),
            sources: state
                .sources
                .iter()
                .map(|(name, (received, last))| SourceStatus {
                    name: name.clone(),
                    received: *received,
                    seconds_since_last: last.map(|last| last.elapsed().as_secs()),
                })
                .collect(),
            queue: depth.map(QueueStatus::from),
            counts: state.counts,
            troubles,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Depth> for QueueStatus {
    fn from(depth: Depth) -> Self {
        Self {
            waiting: depth.waiting,
            claimed: depth.claimed,
            dead: depth.dead,
            oldest_seconds: depth.oldest.map(|oldest| oldest.as_secs()),
        }
    }
}
