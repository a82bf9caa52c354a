//! The number of entries in a queue, by their state.

use std::time::Duration;

/// The number of entries in a queue, by their state.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Depth {
    /// Entries that wait for a worker.
    pub waiting: u64,
    /// Entries that wait for their next attempt.
    pub delayed: u64,
    /// Entries that wait for their task to be resumed.
    pub held: u64,
    /// Entries that were delivered and are not settled. Unknown to a client of RabbitMQ.
    pub claimed: Option<u64>,
    /// Dead letters.
    pub dead: u64,
    /// How long the oldest waiting entry has been in the queue. Unknown to a client of RabbitMQ.
    pub oldest: Option<Duration>,
}
