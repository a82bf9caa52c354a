//! The settlement of a delivery.
//!
//! The retry policy and the worker decide it, and the queue carries it out.

use std::time::Duration;

use crate::Reason;

/// The settlement of a delivery.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Settlement {
    /// The entry is done and leaves the queue.
    Ack,
    /// The entry is redelivered after a back-off, as the next attempt.
    Retry { after: Duration },
    /// The entry is dead-lettered, for a person to look at.
    DeadLetter {
        reason: Reason,
        /// The end of the output of its last run, if there was one.
        output: String,
    },
    /// The entry is returned to the queue and redelivered after a delay; the attempt does not count.
    Requeue { after: Duration },
    /// The entry is held until its task is resumed; the attempt does not count.
    Hold,
}

impl Settlement {
    /// Makes the settlement of a dead letter without output.
    pub fn dead_letter(reason: impl Into<Reason>) -> Self {
        Self::DeadLetter { reason: reason.into(), output: String::new() }
    }

    /// Returns the word for logs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Ack => "done",
            Self::Retry { .. } => "retried",
            Self::DeadLetter { .. } => "dead-lettered",
            Self::Requeue { .. } => "returned to the queue",
            Self::Hold => "held",
        }
    }
}
