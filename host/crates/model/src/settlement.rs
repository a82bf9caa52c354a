//! The settlement of a delivery.
//!
//! The retry policy or the worker decides the settlement, and the queue carries it out.

use std::time::Duration;

use crate::Reason;

/// The settlement of a delivery.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Settlement {
    /// The entry is acknowledged and leaves the queue.
    Ack,
    /// The entry is redelivered after a back-off, as the next attempt.
    Retry { after: Duration },
    /// The entry is dead-lettered. An operator decides whether to requeue or drop it.
    DeadLetter {
        reason: Reason,
        /// End of the output of the last run; empty without a run.
        output: String,
    },
    /// The entry is returned to its queue and redelivered after a delay. The attempt does not count.
    Requeue { after: Duration },
    /// The entry is held until its task is resumed. The attempt does not count.
    Hold,
}

impl Settlement {
    /// Makes the settlement of a dead letter without output.
    pub fn dead_letter(reason: impl Into<Reason>) -> Self {
        Self::DeadLetter { reason: reason.into(), output: String::new() }
    }

    /// Returns the word for log lines.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Ack => "done",
            Self::Retry { .. } => "retried",
            Self::DeadLetter { .. } => "dead-lettered",
            Self::Requeue { .. } => "requeued",
            Self::Hold => "held",
        }
    }
}
