//! The content of a delivery, without the backend's claim.

use loopabull_model::{Entry, Settlement};

use crate::dead_letter::DeathRecord;

/// Number of unsettled deliveries after which an entry becomes a dead letter.
///
/// If a connection is lost, RabbitMQ also counts the deliveries of its prefetched entries, although no task
/// has received them. So the limit is much higher than the number of attempts in any retry policy. The host
/// counts attempts itself.
pub(crate) const DELIVERY_LIMIT: u32 = 100;

/// An entry that was delivered to a worker for one attempt.
#[derive(Debug)]
pub struct DeliveredEntry {
    pub entry: Entry,
    /// Number of this attempt, counted from 1. The queue sets the number of settled attempts plus one. The
    /// worker raises the number if the journal has attempts that a crash interrupted.
    pub attempt: u32,
    /// Time at which the entry was first published, in milliseconds since 1970.
    pub queued_at_ms: i64,
    /// Records of earlier dead-letterings, if the entry was requeued from the dead letters.
    pub(crate) history: Vec<DeathRecord>,
}

impl DeliveredEntry {
    /// Returns the number of attempts that count after the settlement. A requeued or held delivery does not
    /// count.
    pub(crate) fn attempts_after(&self, settlement: &Settlement) -> u32 {
        match settlement {
            Settlement::Requeue { .. } | Settlement::Hold => self.attempt.saturating_sub(1),
            _ => self.attempt,
        }
    }
}
