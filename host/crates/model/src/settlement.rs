//! What becomes of a delivery.
//!
//! Does not decide it (the retry policy and the worker do) and does not carry it out (the queue
//! does).

use std::time::Duration;

use crate::Reason;

/// What becomes of a delivery.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Settlement {
    /// The message is done with and leaves the queue.
    Ack,
    /// The message comes back after a pause, as the next attempt.
    Retry { after: Duration },
    /// The message is set aside for a person to look at.
    DeadLetter {
        reason: Reason,
        /// The end of what its last run printed, if there was one.
        output: String,
    },
    /// The message comes back after a pause: what was made of it does not count.
    GiveBack { after: Duration },
    /// The message waits until its task is released; nothing counts.
    Hold,
}

impl Settlement {
    /// A dead letter without output.
    pub fn dead_letter(reason: impl Into<Reason>) -> Self {
        Self::DeadLetter { reason: reason.into(), output: String::new() }
    }

    /// Returns the word for logs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Ack => "done",
            Self::Retry { .. } => "tried again",
            Self::DeadLetter { .. } => "set aside",
            Self::GiveBack { .. } => "given back",
            Self::Hold => "held",
        }
    }
}
