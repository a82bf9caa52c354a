//! The types that the journal takes and returns: a run with its effects, the answer whether an attempt may begin, and a
//! filter for runs.

use loopabull_model::{Message, Outcome, Run, StateChanges};

/// The journal's answer to an attempt that is about to begin.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Begun {
    /// The attempt may run. `crashes` daemons died while they ran the entry.
    Run { crashes: u32 },
    /// The entry must be delayed. It was running when several daemons died, and must not run at the
    /// same time as another such entry.
    Wait { crashes: u32 },
    /// The entry already has a successful run, but the delivery was not settled.
    Succeeded,
    /// This attempt or a later attempt already has a recorded run, but the delivery was not
    /// settled.
    Ended { outcome: Outcome, attempt: u32, output: String },
}

/// A run with its message and its effects.
#[derive(Clone, Debug)]
pub struct Record {
    pub run: Run,
    pub message: Message,
    /// Messages to send if the run succeeded, in the order of `run.emitted`.
    pub sends: Vec<Message>,
    pub state: StateChanges,
}

/// A filter for runs.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub task: Option<String>,
    pub outcome: Option<String>,
    pub message: Option<String>,
    /// Maximum number of runs.
    pub limit: u32,
}
