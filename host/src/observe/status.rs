//! The board: what the daemon is doing right now, for `status`, `/status` and `/readyz`.
//!
//! Owns the only state that many parts write. Each call takes the lock for a moment, and none is
//! held over an `await`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use loopabull_model::{QueueName, Run};
use loopabull_queue::{Delivery, Depth};
use serde::{Deserialize, Serialize};

use crate::work::pauses::{Pause, Target};

/// What the daemon is doing right now.
#[derive(Debug, Default)]
pub(crate) struct Board {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    workers: BTreeMap<u32, (QueueName, Option<(Work, Instant)>)>,
    sources: BTreeMap<String, Source>,
    counts: Counts,
    /// What does not work, by whom.
    troubles: BTreeMap<String, String>,
}

#[derive(Debug, Default)]
struct Source {
    received: u64,
    last: Option<Instant>,
    /// None, if it was never told.
    link: Option<Link>,
}

/// What became of the connection to a source.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Link {
    /// It stands.
    Connected,
    /// It does not stand, for this reason; it is tried for ever.
    Lost(String),
}

/// What the daemon says of itself, as JSON at `/status`.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Status {
    pub workers: Vec<WorkerStatus>,
    pub sources: Vec<SourceStatus>,
    pub queues: Vec<QueueStatus>,
    pub pauses: Vec<PauseStatus>,
    pub counts: Counts,
    pub troubles: Vec<String>,
}

/// One worker and what it runs.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct WorkerStatus {
    pub number: u32,
    pub queue: QueueName,
    pub work: Option<Work>,
    pub seconds: Option<u64>,
}

/// What a worker runs.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Work {
    pub task: String,
    pub message_id: String,
    pub attempt: u32,
}

/// One source and its last message.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct SourceStatus {
    pub name: String,
    pub received: u64,
    pub seconds_since_last: Option<u64>,
    /// Whether the connection stands.
    pub connected: bool,
    /// Why it does not, if that is known.
    pub trouble: Option<String>,
}

/// Something that rests, and why.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct PauseStatus {
    pub target: Target,
    #[serde(flatten)]
    pub pause: Pause,
}

/// How full a queue is: see [`Depth`].
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct QueueStatus {
    pub name: QueueName,
    pub waiting: u64,
    pub later: u64,
    pub held: u64,
    pub claimed: Option<u64>,
    pub dead: u64,
    pub oldest_seconds: Option<u64>,
}

/// What has happened since the start.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Counts {
    pub accepted: u64,
    pub rejected: u64,
    pub unrouted: u64,
    pub runs: u64,
    pub succeeded: u64,
}

impl Board {
    /// Sets up a worker, which is idle.
    pub(crate) fn add_worker(&self, number: u32, queue: &QueueName) {
        self.state().workers.insert(number, (queue.clone(), None));
    }

    /// Sets up a source, which has received nothing yet.
    pub(crate) fn add_source(&self, name: &str) {
        self.state().sources.insert(name.to_owned(), Source::default());
    }

    /// Notes that something came from a source.
    pub(crate) fn receive(&self, source: &str) {
        if let Some(source) = self.state().sources.get_mut(source) {
            source.received += 1;
            source.last = Some(Instant::now());
        }
    }

    /// Notes what became of the connection to a source.
    pub(crate) fn set_link(&self, source: &str, link: Link) {
        if let Some(source) = self.state().sources.get_mut(source) {
            source.link = Some(link);
        }
    }

    /// Changes the counts.
    pub(crate) fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.state().counts);
    }

    /// Counts a run.
    pub(crate) fn count_run(&self, run: &Run) {
        self.count(|counts| {
            counts.runs += 1;
            counts.succeeded += u64::from(run.outcome.is_success());
        });
    }

    /// Notes what a worker runs.
    pub(crate) fn start(&self, worker: u32, delivery: &Delivery) {
        let work = Work {
            task: delivery.entry.task.to_string(),
            message_id: delivery.entry.message.id.to_string(),
            attempt: delivery.attempt,
        };
        self.set_work(worker, Some((work, Instant::now())));
    }

    /// Notes that a worker is idle.
    pub(crate) fn finish(&self, worker: u32) {
        self.set_work(worker, None);
    }

    /// Notes that something does not work.
    pub(crate) fn set_trouble(&self, who: &str, what: &str) {
        self.state().troubles.insert(who.to_owned(), what.to_owned());
    }

    /// Notes that it works again.
    pub(crate) fn clear_trouble(&self, who: &str) {
        self.state().troubles.remove(who);
    }

    /// Returns what does not work, a line each. Empty if the daemon is ready.
    pub(crate) fn troubles(&self) -> Vec<String> {
        self.state().troubles.iter().map(|(who, what)| format!("{who}: {what}")).collect()
    }

    /// Returns everything, with the depth of the queues that could be had.
    pub(crate) fn status(
        &self,
        depths: Vec<(QueueName, Depth)>,
        pauses: Vec<PauseStatus>,
    ) -> Status {
        let troubles = self.troubles();
        let state = self.state();
        Status {
            workers: state
                .workers
                .iter()
                .map(|(&number, (queue, work))| WorkerStatus {
                    number,
                    queue: queue.clone(),
                    work: work.as_ref().map(|(work, _)| work.clone()),
                    seconds: work.as_ref().map(|(_, since)| since.elapsed().as_secs()),
                })
                .collect(),
            sources: state
                .sources
                .iter()
                .map(|(name, source)| SourceStatus {
                    name: name.clone(),
                    received: source.received,
                    seconds_since_last: source.last.map(|last| last.elapsed().as_secs()),
                    connected: source.link == Some(Link::Connected),
                    trouble: match &source.link {
                        Some(Link::Lost(why)) => Some(why.clone()),
                        Some(Link::Connected) | None => None,
                    },
                })
                .collect(),
            queues: depths.into_iter().map(QueueStatus::from).collect(),
            pauses,
            counts: state.counts,
            troubles,
        }
    }

    fn set_work(&self, worker: u32, work: Option<(Work, Instant)>) {
        if let Some((_, slot)) = self.state().workers.get_mut(&worker) {
            *slot = work;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<(QueueName, Depth)> for QueueStatus {
    fn from((name, depth): (QueueName, Depth)) -> Self {
        Self {
            name,
            later: depth.later,
            held: depth.held,
            waiting: depth.waiting,
            claimed: depth.claimed,
            dead: depth.dead,
            oldest_seconds: depth.oldest.map(|oldest| oldest.as_secs()),
        }
    }
}
