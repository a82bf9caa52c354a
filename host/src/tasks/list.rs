//! The list of the installed tasks, as the pages, the API and the commands show it.

use std::collections::BTreeMap;

use loopabull_model::{Pause, QueueName, Target, Task, TaskKind, TaskName, TopicPattern};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::tasks::catalog::Catalog;
use crate::tasks::discovery::{Finding, Severity};

/// The installed tasks.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct TaskList {
    pub tasks: Vec<TaskEntry>,
    /// Problems and notes about the files of tasks.
    pub findings: Vec<FindingEntry>,
}

/// An installed task.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct TaskEntry {
    pub name: TaskName,
    pub kind: TaskKind,
    pub topics: Vec<TopicPattern>,
    pub queue: QueueName,
    /// The time limit of a run, in seconds.
    pub timeout_seconds: f64,
    /// The kinds of grants, for example `http`.
    pub grants: Vec<String>,
    pub state: TaskState,
    /// Why the task does not run.
    pub reason: Option<String>,
}

/// Whether a task runs.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TaskState {
    Ready,
    Paused,
    /// Its queue is paused.
    QueuePaused,
    /// Its file, its manifest or one of its grants cannot be used.
    Refused,
}

/// A problem or a note about a file of a task.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct FindingEntry {
    pub file: String,
    /// Whether the file cannot be used.
    pub is_problem: bool,
    pub text: String,
}

impl TaskList {
    /// Returns the tasks of a catalog, in the order of their names.
    pub(crate) fn of(catalog: &Catalog, pauses: &BTreeMap<Target, Pause>) -> Self {
        let state = |task: &Task| {
            if let Some(reason) = catalog.refused(&task.name) {
                return (TaskState::Refused, Some(reason));
            }
            let queue = Target::Queue(task.manifest.queue.clone());
            let targets = [
                (TaskState::Paused, Target::Task(task.name.clone())),
                (TaskState::QueuePaused, queue),
            ];
            for (state, target) in targets {
                if let Some(Pause { by, reason, .. }) = pauses.get(&target) {
                    return (state, Some(format!("by the {}: {reason}", by.as_str())));
                }
            }
            (TaskState::Ready, None)
        };
        let entry = |task: &Task| {
            let (state, reason) = state(task);
            TaskEntry {
                name: task.name.clone(),
                kind: task.kind,
                topics: task.patterns(),
                queue: task.manifest.queue.clone(),
                timeout_seconds: task.timeout().as_secs_f64(),
                grants: task.manifest.grants.kinds().into_iter().map(str::to_owned).collect(),
                state,
                reason,
            }
        };
        let finding = |Finding { severity, file, text }: &Finding| FindingEntry {
            file: file.display().to_string(),
            is_problem: *severity != Severity::Note,
            text: text.clone(),
        };
        Self {
            tasks: catalog.routes.tasks().into_iter().map(|task| entry(task)).collect(),
            findings: catalog.all_findings().map(finding).collect(),
        }
    }
}
