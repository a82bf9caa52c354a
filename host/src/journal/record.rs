//! The types that the journal takes and returns: a run with its effects, the end of an attempt, and counts of crashes.

use std::collections::{HashMap, HashSet};

use loopabull_model::{Entry, EntryId, Message, Outcome, Run, StateChanges, TaskName};
use loopabull_queue::FileSettlement;
use serde::{Deserialize, Serialize};

/// A run with its message and its effects.
#[derive(Clone, Debug)]
pub struct Record {
    pub run: Run,
    pub message: Message,
    /// Messages to send if the run succeeded, in the order of `run.emitted`.
    pub sends: Vec<Message>,
    pub state: StateChanges,
    /// Whether the run ends a count of crashes, of its entry or of its task.
    pub ends_count: bool,
    /// Changes of the embedded queue in the same transaction. They are skipped if the outcome changes.
    pub queue: Option<QueueChanges>,
}

/// The changes of the embedded queue that belong to a run.
#[derive(Clone, Debug)]
pub struct QueueChanges {
    /// The entries for the messages to send.
    pub entries: Vec<Entry>,
    /// Whether these messages are also published on the bus.
    pub after: AfterQueues,
    /// The settlement of the delivery.
    pub settlement: FileSettlement,
}

/// Whether an emitted message is also published on the bus, after it was published to the queues.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AfterQueues {
    /// The message is only published to the queues.
    Done,
    /// The message is also published on the bus.
    Bus,
}

/// The end of an attempt that has a recorded run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ended {
    pub attempt: u32,
    pub outcome: Outcome,
    pub output: String,
}

/// A run that was in progress when a daemon ended: its entry, its task and its attempt.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct InterruptedRun {
    pub entry: EntryId,
    pub task: TaskName,
    pub attempt: u32,
}

/// A task that was running when earlier daemons died.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Crashed {
    pub task: TaskName,
    /// Number of daemons that died while the task was running. A successful run of the task resets
    /// the number.
    pub count: u32,
}

/// The entries with which daemons died, with the number of these daemons, and the tasks.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CrashCounts {
    pub entries: HashMap<EntryId, u32>,
    pub tasks: HashSet<TaskName>,
}
