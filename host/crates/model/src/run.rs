//! The result of one attempt, and the run: the record of the attempt in the journal.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    DurationForm, Effects, Emitted, EntryId, MessageId, Outcome, Output, PlaybookReport, RunId,
    TaskKind, TaskName, Topic, Usage,
};

/// The result of one attempt, as a runner returns it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Attempt {
    pub outcome: Outcome,
    pub output: Output,
    /// Notes that the task wrote about the run, in order.
    pub notes: Vec<(String, String)>,
    pub usage: Usage,
    /// Effects of the run: state changes and sent messages. Empty unless the outcome is success.
    pub effects: Effects,
    /// Report of the playbook; `None` for a component.
    pub playbook: Option<PlaybookReport>,
}

impl Attempt {
    /// Makes an attempt with this outcome and without output.
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
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct Run {
    pub id: RunId,
    pub entry: EntryId,
    pub message_id: MessageId,
    pub topic: Topic,
    pub task: TaskName,
    pub kind: TaskKind,
    /// Number of the attempt, counted from 1.
    pub attempt: u32,
    /// Number of the worker that ran the task, counted from 1.
    pub worker: u32,
    /// Start time, in milliseconds since 1970.
    pub started_at_ms: i64,
    #[schema(value_type = DurationForm)]
    pub duration: Duration,
    pub outcome: Outcome,
    pub output: Output,
    pub notes: Vec<(String, String)>,
    /// Grants of the task, one line each.
    pub grants: Vec<String>,
    pub usage: Usage,
    /// Messages that the run sent.
    pub emitted: Vec<Emitted>,
    /// Report of the playbook; `None` for a component.
    pub playbook: Option<PlaybookReport>,
}
