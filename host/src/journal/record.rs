//! The answers and the entries of the journal, as its callers see them.

use loopabull_model::{Message, Outcome, Run, StateChanges};

/// The journal's answer to an attempt that is about to begin.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Begun {
    /// The attempt may start. `crashes` daemons died while they ran the entry.
    Run { crashes: u32 },
    /// The entry has to wait: it was running when several daemons died, and must not run beside the
    /// other entries that were running then.
    Wait { crashes: u32 },
    /// The entry already had a successful run, but the queue does not know it.
    Succeeded,
    /// This attempt or a later one already had its run, but the queue does not know it.
    Ended { outcome: Outcome, attempt: u32, output: String },
}

/// A run with its message and its effects.
#[derive(Clone, Debug)]
pub struct Record {
    pub run: Run,
    pub message: Message,
    /// The messages to send if the run succeeded, in the order of `run.emitted`.
    pub sends: Vec<Message>,
    pub state: StateChanges,
}
