//! The status of the daemon, which `/api/v1/status` serves as JSON and the command `status` reads.

use std::collections::BTreeMap;

use loopabull_model::{Pause, QueueName, RunId, Target, TaskName};
use loopabull_queue::{Bound, Depth};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::observe::activity::{Counts, Link, Processing, SourceActivity, WorkerActivity};
use crate::observe::history::Trend;
use crate::observe::observation::Observation;
use crate::observe::warnings;

/// The status of the daemon.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct Status {
    /// Process id of the daemon.
    pub pid: u32,
    pub workers: Vec<WorkerStatus>,
    pub sources: Vec<SourceStatus>,
    pub queues: Vec<QueueStatus>,
    pub pauses: Vec<PauseStatus>,
    pub counts: Counts,
    /// True while the daemon waits for its last runs before it exits.
    pub draining: bool,
    /// One line for each problem, as `/readyz` shows them.
    pub problems: Vec<String>,
    /// One line for each warning, as `/warnings` shows them.
    pub warnings: Vec<String>,
}

/// A worker and the delivery that it processes.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct WorkerStatus {
    pub number: u32,
    pub queue: QueueName,
    pub work: Option<Work>,
    /// Time for which the worker has been processing the delivery, in seconds.
    pub seconds: Option<u64>,
}

/// The delivery that a worker processes.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct Work {
    /// Id of the run. None if the task has not started yet, or its run has ended.
    pub run: Option<RunId>,
    pub task: String,
    pub message_id: String,
    pub attempt: u32,
}

/// A source and its connection.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct SourceStatus {
    pub name: String,
    pub received: u64,
    pub seconds_since_last: Option<u64>,
    /// Messages a minute, the mean since the start of the source.
    pub per_minute: f64,
    pub connected: bool,
    /// Reason why the source is not connected, if it is known.
    pub problem: Option<String>,
}

/// A pause and its target.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct PauseStatus {
    pub target: Target,
    #[serde(flatten)]
    pub pause: Pause,
}

/// The depth of a queue: see [`Depth`].
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct QueueStatus {
    pub name: QueueName,
    pub waiting: u64,
    pub delayed: u64,
    /// Time until the last delayed entry is due, in seconds.
    pub longest_delay_seconds: Option<u64>,
    /// Number of held messages of all tasks.
    pub held: u64,
    pub held_tasks: Vec<HeldStatus>,
    pub claimed: Option<u64>,
    pub dead: u64,
    pub oldest_seconds: Option<u64>,
    /// How exact this time is.
    pub oldest_bound: Bound,
    /// How the number of waiting messages changed in the last minute. None if it is not known.
    #[serde(flatten)]
    pub trend: Option<Trend>,
}

/// The held messages of a task in a queue.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct HeldStatus {
    pub task: TaskName,
    pub count: u64,
    /// Time that the oldest message has been in the queue. None for RabbitMQ.
    pub oldest_seconds: Option<u64>,
    /// Reason why the messages are held.
    pub reason: String,
}

impl Status {
    /// Returns the status. `why_held` returns the reason why messages of a task that is not paused are held.
    pub(crate) fn new(
        seen: Observation,
        why_held: impl Fn(&TaskName) -> String,
        draining: bool,
    ) -> Self {
        let warnings = warnings::lines(&seen);
        let Observation { depths, trends, activity, pauses, problems, .. } = seen;
        let queues = depths
            .into_iter()
            .map(|(name, depth)| {
                let trend = trends.get(&name).copied();
                QueueStatus { trend, ..QueueStatus::new(name, depth, &pauses, &why_held) }
            })
            .collect();
        let pauses = pauses
            .iter()
            .map(|(target, pause)| PauseStatus { target: target.clone(), pause: pause.clone() });
        Self {
            pid: std::process::id(),
            workers: activity.workers.into_iter().map(WorkerStatus::from).collect(),
            sources: activity.sources.into_iter().map(SourceStatus::from).collect(),
            queues,
            pauses: pauses.collect(),
            counts: activity.counts,
            draining,
            problems,
            warnings,
        }
    }
}

impl From<(u32, WorkerActivity)> for WorkerStatus {
    fn from((number, worker): (u32, WorkerActivity)) -> Self {
        let WorkerActivity { queue, mut processing } = worker;
        // The others wait for their settlement, usually for a moment. If they wait longer, the oldest one tells why.
        let processing = processing.pop_front();
        let seconds = processing.as_ref().map(|processing| processing.since.elapsed().as_secs());
        Self { number, queue, work: processing.map(Work::from), seconds }
    }
}

impl From<Processing> for Work {
    fn from(processing: Processing) -> Self {
        Self {
            run: None,
            task: processing.task.to_string(),
            message_id: processing.message_id.to_string(),
            attempt: processing.attempt,
        }
    }
}

impl From<(String, SourceActivity)> for SourceStatus {
    fn from((name, source): (String, SourceActivity)) -> Self {
        Self {
            name,
            received: source.received,
            seconds_since_last: source.last.map(|last| last.elapsed().as_secs()),
            per_minute: source.received as f64 * 60.0
                / source.since.elapsed().as_secs_f64().max(1.0),
            connected: source.link == Some(Link::Connected),
            problem: match source.link {
                Some(Link::Lost(reason)) => Some(reason),
                Some(Link::Connected) | None => None,
            },
        }
    }
}

impl QueueStatus {
    /// Returns the status of a queue. `why_held` returns the reason why messages of a task that is not paused are
    /// held.
    pub(crate) fn new(
        name: QueueName,
        depth: Depth,
        pauses: &BTreeMap<Target, Pause>,
        why_held: impl Fn(&TaskName) -> String,
    ) -> Self {
        let reason = |task: &TaskName| match pauses.get(&Target::Task(task.clone())) {
            Some(pause) => format!("paused by the {}: {}", pause.by.as_str(), pause.reason),
            None => why_held(task),
        };
        let held_tasks = depth.held.iter().map(|(task, held)| HeldStatus {
            task: task.clone(),
            count: held.count,
            oldest_seconds: held.oldest.map(|oldest| oldest.as_secs()),
            reason: reason(task),
        });
        Self {
            name,
            held: depth.held_count(),
            held_tasks: held_tasks.collect(),
            delayed: depth.delayed,
            longest_delay_seconds: depth.longest_delay.map(|delay| delay.as_secs()),
            waiting: depth.waiting,
            claimed: depth.claimed,
            dead: depth.dead,
            oldest_seconds: depth.oldest.map(|oldest| oldest.age.as_secs()),
            oldest_bound: depth.oldest.map(|oldest| oldest.bound).unwrap_or_default(),
            trend: None,
        }
    }
}
