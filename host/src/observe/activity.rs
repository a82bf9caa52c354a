//! The current activity of the daemon: the state of each worker and source, and counts since the
//! start.
//!
//! Many parts of the daemon report their activity here, and `/api/v1/status` shows it. The lock is held
//! for a moment and never over an `await`.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use loopabull_model::{MessageId, Outcome, QueueName, Run, TaskKind, TaskName};
use loopabull_queue::Delivery;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::observe::failing::Failing;

/// The time that a source may need to connect, or to connect again, before the daemon is not ready.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// The time after the last failure of a task for which the failures are remembered.
const FAILURES_SHOWN: Duration = Duration::from_hours(24);

/// The current activity of the daemon.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    state: Mutex<Snapshot>,
}

/// The activity at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// Workers by their number, counted from 1.
    pub workers: BTreeMap<u32, WorkerActivity>,
    /// Sources by their name.
    pub sources: BTreeMap<String, SourceActivity>,
    pub counts: Counts,
    /// Messages that were lost since the start of the daemon. None if there were none.
    pub losses: Option<Losses>,
    /// Tasks whose last runs failed.
    pub failing: BTreeMap<TaskName, Failing>,
}

/// Messages that were lost, because they could not be stored and their source does not send them again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Losses {
    pub count: u64,
    /// Time of the last loss.
    pub last: Instant,
}

/// A worker and the deliveries that it processes.
#[derive(Clone, Debug)]
pub(crate) struct WorkerActivity {
    pub queue: QueueName,
    /// Deliveries that are not settled, in the order of their receipt. The last one may be running; the others wait for
    /// their settlement.
    pub processing: VecDeque<Processing>,
}

/// A delivery that is being processed.
#[derive(Clone, Debug)]
pub(crate) struct Processing {
    pub task: TaskName,
    pub message_id: MessageId,
    pub attempt: u32,
    pub since: Instant,
}

/// A source: the number of its messages, and the state of its connection.
#[derive(Clone, Debug)]
pub(crate) struct SourceActivity {
    pub received: u64,
    /// Time at which the source was started.
    pub since: Instant,
    /// Whether the source is an archive, which has something to send only now and then.
    pub is_archive: bool,
    /// Time at which the source was connected again after it had been unavailable for [`CONNECT_LIMIT`].
    pub back_since: Option<Instant>,
    /// Time at which the last message was received.
    pub last: Option<Instant>,
    /// State of the connection. None until the source reports it for the first time.
    pub link: Option<Link>,
    /// Time since when the source is not connected, although it should be.
    pub unconnected_since: Option<Instant>,
}

/// The state of the connection to a source.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Link {
    Connected,
    /// The source is not connected, for the given reason. It tries to reconnect.
    Lost(String),
}

/// Counts since the start of the daemon.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, ToSchema)]
pub(crate) struct Counts {
    pub accepted: u64,
    pub rejected: u64,
    pub unrouted: u64,
    pub runs: u64,
    pub succeeded: u64,
}

/// A guard for a delivery that a worker processes. The guards of a worker are dropped in the order of their deliveries.
/// After the last one, the worker is idle.
#[derive(Debug)]
pub(crate) struct Busy<'a> {
    activity: &'a Activity,
    worker: u32,
}

impl Activity {
    /// Adds an idle worker.
    pub(crate) fn add_worker(&self, number: u32, queue: &QueueName) {
        let worker = WorkerActivity { queue: queue.clone(), processing: VecDeque::new() };
        self.state.lock().workers.insert(number, worker);
    }

    /// Adds a source without messages, which connects now and stays connected.
    pub(crate) fn add_source(&self, name: &str) {
        self.insert_source(name, false);
    }

    /// Adds a source without messages, which connects when it has something to fetch.
    pub(crate) fn add_archive(&self, name: &str) {
        self.insert_source(name, true);
    }

    fn insert_source(&self, name: &str, is_archive: bool) {
        let since = Instant::now();
        let source = SourceActivity {
            received: 0,
            since,
            is_archive,
            back_since: None,
            last: None,
            link: None,
            unconnected_since: (!is_archive).then_some(since),
        };
        self.state.lock().sources.insert(name.to_owned(), source);
    }

    /// Counts a message that a source received.
    pub(crate) fn receive(&self, source: &str) {
        if let Some(source) = self.state.lock().sources.get_mut(source) {
            source.received += 1;
            source.last = Some(Instant::now());
        }
    }

    /// Sets the state of the connection to a source.
    pub(crate) fn set_link(&self, source: &str, link: Link) {
        if let Some(source) = self.state.lock().sources.get_mut(source) {
            let was_away = source.unconnected_since.is_some_and(|at| at.elapsed() >= CONNECT_LIMIT);
            if link == Link::Connected && was_away {
                source.back_since = Some(Instant::now());
            }
            source.unconnected_since = match link {
                Link::Connected => None,
                Link::Lost(_) => source.unconnected_since.or_else(|| Some(Instant::now())),
            };
            source.link = Some(link);
        }
    }

    /// Calls `change` with the counts.
    pub(crate) fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.state.lock().counts);
    }

    /// Notes that messages were lost.
    pub(crate) fn lose(&self, count: u64) {
        let losses = &mut self.state.lock().losses;
        let earlier = losses.map_or(0, |losses| losses.count);
        *losses = Some(Losses { count: earlier + count, last: Instant::now() });
    }

    /// Counts a run.
    pub(crate) fn count_run(&self, run: &Run) {
        let mut state = self.state.lock();
        state.counts.runs += 1;
        if run.outcome.is_success() {
            state.counts.succeeded += 1;
            state.failing.remove(&run.task);
        } else if is_failure(run) {
            state.failing.entry(run.task.clone()).or_default().add(&run.outcome);
        }
    }

    /// Forgets the failures of tasks that have changed.
    pub(crate) fn forget_failures(&self, changed: &[TaskName]) {
        self.state.lock().failing.retain(|task, _| !changed.contains(task));
    }

    /// Forgets the failures of all tasks but these, and those that are older than [`FAILURES_SHOWN`].
    pub(crate) fn keep_failing(&self, is_installed: impl Fn(&TaskName) -> bool) {
        let is_new = |failing: &Failing| failing.last.elapsed() < FAILURES_SHOWN;
        self.state.lock().failing.retain(|task, failing| is_installed(task) && is_new(failing));
    }

    /// Adds a delivery to those that a worker processes, until the returned guard is dropped.
    pub(crate) fn start(&self, worker: u32, delivery: &Delivery) -> Busy<'_> {
        let processing = Processing {
            task: delivery.entry.task.clone(),
            message_id: delivery.entry.message.id.clone(),
            attempt: delivery.attempt,
            since: Instant::now(),
        };
        if let Some(worker) = self.state.lock().workers.get_mut(&worker) {
            worker.processing.push_back(processing);
        }
        Busy { activity: self, worker }
    }

    /// Returns one line for each source that has been unavailable for [`CONNECT_LIMIT`].
    pub(crate) fn problems(&self) -> Vec<String> {
        let state = self.state.lock();
        let problem = |(name, source): (&String, &SourceActivity)| {
            let time = source.unconnected_since?.elapsed();
            let reason = match &source.link {
                Some(Link::Lost(reason)) => format!(": {reason}"),
                Some(Link::Connected) | None => String::new(),
            };
            let seconds = Duration::from_secs(time.as_secs());
            let seconds = humantime::format_duration(seconds);
            (time >= CONNECT_LIMIT).then(|| format!("{name}: unavailable for {seconds}{reason}"))
        };
        state.sources.iter().filter_map(problem).collect()
    }

    /// Returns a copy of the current activity.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.state.lock().clone()
    }
}

impl SourceActivity {
    /// Returns since when the source has been silent although it was available.
    pub(crate) fn silent_since(&self) -> Instant {
        let last = self.last.unwrap_or(self.since);
        self.back_since.map_or(last, |back| last.max(back))
    }
}

/// Returns whether a run says that its task fails. A run that does not count as an attempt says nothing, and neither does a
/// repetition that an operator tried, or a run that an operator cancelled. A component may ask for a second attempt as a part of its work; a playbook whose hosts
/// cannot be reached has failed.
fn is_failure(run: &Run) -> bool {
    let is_asking = matches!(run.outcome, Outcome::Retry { .. })
        && run.kind == TaskKind::Component
        && run.attempt == 1;
    let is_tried = run.entry.again_of().is_some();
    let is_aborted = matches!(run.outcome, Outcome::Aborted { .. });
    !run.outcome.is_success() && run.outcome.is_attempt() && !is_asking && !is_tried && !is_aborted
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if let Some(worker) = self.activity.state.lock().workers.get_mut(&self.worker) {
            worker.processing.pop_front();
        }
    }
}
