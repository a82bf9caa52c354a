//! The number of entries in a queue, by state.

use std::collections::BTreeMap;
use std::time::Duration;

use loopabull_model::{QueueName, TaskName};

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
    pub oldest: Option<Duration>,
    /// Whether the oldest entry may have waited for less. RabbitMQ does not report this time to clients. So it is the time since
    /// the queue was last seen empty, or since the entry was published that this process received last, whichever is shorter. Until one
    /// of them is known, it is the time since the first look, and then the entry may also have waited for longer.
    pub is_oldest_estimated: bool,
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
