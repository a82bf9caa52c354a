//! The content of a delivery, without the claim that its backend adds.

use loopabull_model::{Entry, Settlement};

use crate::dead_letter::DeathRecord;

/// How often an entry is delivered without being settled before it becomes a dead letter.
///
/// RabbitMQ counts the deliveries that ended with their connection, also of prefetched entries that no
/// task ever saw. So the limit is far beyond what a retry policy allows: we count the attempts ourselves.
pub(crate) const DELIVERY_LIMIT: u32 = 100;

/// An entry that was delivered to a worker for one attempt.
#[derive(Debug)]
pub struct DeliveredEntry {
    pub entry: Entry,
    /// The number of this attempt, counted from 1, as far as the queue knows: the number of settled
    /// attempts plus one. A worker that knows of attempts that were cut off sets it higher.
    pub attempt: u32,
    /// When the entry was first published, in milliseconds since 1970.
    pub queued_at_ms: i64,
    /// Its earlier deaths, if it was requeued from the dead letters.
    pub(crate) history: Vec<DeathRecord>,
}

impl DeliveredEntry {
    /// Returns the number of attempts that count once the delivery is settled.
    pub(crate) fn attempts_after(&self, settlement: &Settlement) -> u32 {
        match settlement {
            Settlement::Requeue { .. } | Settlement::Hold => self.attempt.saturating_sub(1),
            _ => self.attempt,
        }
    }
}
