//! The circuit breakers pause a task after too many consecutive failures.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use loopabull_model::{Breaker, Reason, Run, Target, Task, TaskName};
use parking_lot::Mutex;

use crate::work::pauses::Pauses;

/// The circuit breakers of all tasks.
#[derive(Debug)]
pub(crate) struct Breakers {
    started: Instant,
    by_task: Mutex<HashMap<TaskName, Breaker>>,
    pauses: Arc<Pauses>,
}

impl Breakers {
    /// Creates the circuit breakers. They add the pauses of tasks to `pauses`.
    pub(crate) fn new(pauses: Arc<Pauses>) -> Self {
        Self { started: Instant::now(), by_task: Mutex::default(), pauses }
    }

    /// Counts the outcome of a run. Pauses the task after too many consecutive failures.
    pub(crate) async fn count(&self, task: &Task, run: &Run) {
        if let Some(reason) = self.trip(task, run) {
            self.pauses.pause_automatically(Target::Task(task.name.clone()), &reason).await;
        }
    }

    /// Counts the outcome of a run. Returns the reason if the task must be paused.
    fn trip(&self, task: &Task, run: &Run) -> Option<Reason> {
        let policy = &task.manifest.breaker;
        let mut by_task = self.by_task.lock();
        let breaker = by_task.entry(task.name.clone()).or_default();
        if !breaker.count(policy, &run.outcome, self.started.elapsed()) {
            return None;
        }
        let (failures, window) = (policy.failures, humantime::format_duration(policy.window));
        let outcome = &run.outcome;
        Some(
            format!("{failures} consecutive failures within {window}; last outcome: {outcome}")
                .into(),
        )
    }
}
