//! The number of entries in a queue, by state.

use std::collections::BTreeMap;
use std::time::Duration;

use loopabull_model::{QueueName, TaskName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The number of entries in a queue, by state.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Depth {
    /// Number of entries that wait for a worker.
    pub waiting: u64,
    /// Number of entries that wait for their next attempt.
    pub delayed: u64,
    /// Time until the last of these entries is due. `None` if there are none, and for RabbitMQ, which does not
    /// report this time to clients.
    pub longest_delay: Option<Duration>,
    /// Entries that are held because their task is paused or must not run, by task.
    pub held: BTreeMap<TaskName, Held>,
    /// Number of delivered entries that are not settled. `None` for RabbitMQ, which does not report this
    /// number to clients.
    pub claimed: Option<u64>,
    /// Number of dead letters.
    pub dead: u64,
    /// Time that the oldest waiting entry has spent in the queue. `None` if no entry waits, or if the time is unknown.
    pub oldest: Option<Oldest>,
}

/// How long the oldest waiting entry has been in the queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Oldest {
    pub age: Duration,
    pub bound: Bound,
}

/// How exact the age of an entry is. RabbitMQ does not report since when an entry waits.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    #[default]
    Exact,
    /// The time since the queue was last seen empty, or since the last received entry was published, whichever is shorter.
    AtMost,
    /// Neither is known: the time since the last delivery, or since the first look.
    AtLeast,
}

impl Bound {
    /// Returns the sign before a time in a table, with a space.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Exact => "",
            Self::AtMost => "≤ ",
            Self::AtLeast => "≥ ",
        }
    }
}

/// The held entries of a task.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Held {
    /// Number of entries.
    pub count: u64,
    /// Time that the oldest of them has spent in the queue. `None` for RabbitMQ, which does not report this
    /// time to clients.
    pub oldest: Option<Duration>,
}

impl Depth {
    /// Returns the number of held entries of all tasks.
    pub fn held_count(&self) -> u64 {
        self.held.values().map(|held| held.count).sum()
    }
}

/// The held entries of a task that are released.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Release {
    Nothing,
    /// The first entry, to find out whether the task works.
    One,
    All,
}

/// A queue, and a task that has held entries in the queue.
pub type HeldTask = (QueueName, TaskName);
