//! A run: the record of one attempt.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    Effects, Emitted, EntryId, MessageId, Outcome, Output, PlaybookReport, TaskKind, TaskName,
    Topic, Usage,
};

/// What a runner brings back of one attempt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Attempt {
    pub outcome: Outcome,
    pub output: Output,
    /// What the task noted about itself, in order.
    pub notes: Vec<(String, String)>,
    pub usage: Usage,
    /// What it wants to change outside itself. Empty unless it succeeded.
    pub effects: Effects,
    /// What is known beside that, if it is a playbook.
    pub playbook: Option<PlaybookReport>,
}

impl Attempt {
    /// An attempt that wrote nothing.
    pub fn without_output(outcome: Outcome) -> Self {
        Self {
            outcome,
            output: Output::default(),
            notes: Vec::new(),
            usage: Usage::default(),
            effects: Effects::default(),
            playbook: None,
        }
    }
}

/// The record of one attempt.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Run {
    pub id: RunId,
    pub entry: EntryId,
    pub message_id: MessageId,
    pub topic: Topic,
    pub task: TaskName,
    pub kind: TaskKind,
    /// Counted from 1.
    pub attempt: u32,
    /// Which worker ran it, counted from 1.
    pub worker: u32,
    /// Milliseconds since 1970.
    pub started_at_ms: i64,
    pub duration: Duration,
    pub outcome: Outcome,
    pub output: Output,
    pub notes: Vec<(String, String)>,
    /// What the task was granted, a line each.
    pub grants: Vec<String>,
    pub usage: Usage,
    /// The messages that are sent because of it.
    pub emitted: Vec<Emitted>,
    /// What is known beside that, if it is a playbook.
    pub playbook: Option<PlaybookReport>,
}

/// The id of a run.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct RunId(String);

impl RunId {
    /// Takes a text as the id of a run. The journal looks it up or finds nothing.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
