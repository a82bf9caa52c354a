//! Where an entry is.

use std::time::Duration;

use loopabull_model::QueueName;

/// Where an entry is now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Whereabouts {
    pub queue: QueueName,
    pub state: EntryState,
}

/// The state of an entry in its queue.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EntryState {
    /// A worker has it.
    Claimed,
    /// It waits for a worker, behind this number of other new entries, of which at most [`EntryState::MAX_AHEAD`] are
    /// counted.
    Waiting {
        ahead: u64,
    },
    /// It waits for a worker, for another attempt. Such entries and new ones are taken by turns.
    Due,
    /// It waits for its next attempt.
    Delayed {
        left: Duration,
    },
    /// It is held, because its task is paused or must not run.
    Held,
    Dead {
        reason: String,
    },
}

impl EntryState {
    /// The number of waiting entries that are counted.
    pub const MAX_AHEAD: u64 = 10_000;
}
