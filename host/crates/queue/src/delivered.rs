//! A delivered entry: everything that a worker gets from a queue, except the claim.
//!
//! The claim is the backend's handle for settling the delivery. The module `delivery` adds it.

use loopabull_model::{Entry, Settlement};

use crate::dead_letter::DeathRecord;

/// An entry that was delivered to a worker for one attempt.
#[derive(Debug)]
pub struct DeliveredEntry {
    pub entry: Entry,
    /// Number of this attempt, counted from 1. The queue sets this number to one more than the number of
    /// settled attempts. The worker raises the number if its journal has a later attempt, whose settlement
    /// was lost.
    pub attempt: u32,
    /// Time at which the entry was first published, in milliseconds since 1970.
    pub queued_at_ms: i64,
    /// Whether the file of the embedded queue has runs of the entry. `None` with RabbitMQ, or if nobody looked.
    pub has_runs: Option<bool>,
    /// Records of earlier dead-letterings, if the entry was requeued from the dead letters.
    pub(crate) history: Vec<DeathRecord>,
}

impl DeliveredEntry {
    /// Returns the entry's new count of attempts. A delivery that is requeued or held does not count as an
    /// attempt.
    pub(crate) fn attempts_after(&self, settlement: &Settlement) -> u32 {
        match settlement {
            Settlement::Requeue { .. } | Settlement::Hold => self.attempt.saturating_sub(1),
            _ => self.attempt,
        }
    }
}
