//! The circuit breakers pause a task after too many consecutive failures, and try one message after a
//! while.
//!
//! This module keeps a breaker for each task, and stores the pauses. It does not hold or release
//! entries.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use loopabull_model::{
    Breaker, BreakerChange, Entry, EntryId, Outcome, PausedBy, Run, Target, Task, TaskName,
};
use parking_lot::Mutex;

use crate::tasks::catalog::Catalog;
use crate::work::pauses::Pauses;

/// The circuit breakers of all tasks.
#[derive(Debug)]
pub(crate) struct Breakers {
    started: Instant,
    by_task: Mutex<HashMap<TaskName, Breaker>>,
    pauses: Arc<Pauses>,
}

/// A guard for an admitted entry. When it is dropped and the entry was a trial without an outcome, another
/// entry can be the trial.
#[derive(Debug)]
pub(crate) struct Admitted<'a> {
    breakers: &'a Breakers,
    task: TaskName,
    entry: EntryId,
}

impl Breakers {
    /// Creates the circuit breakers. They add the pauses of tasks to `pauses`. A breaker whose pause an
    /// earlier daemon began is open.
    pub(crate) fn new(pauses: Arc<Pauses>, catalog: &Catalog) -> Self {
        let breakers = Self { started: Instant::now(), by_task: Mutex::default(), pauses };
        for (target, pause) in breakers.pauses.current().iter() {
            if let (Target::Task(task), PausedBy::Breaker) = (target, pause.by) {
                let installed = catalog.routes.task(task);
                let policy = installed.map(|task| task.manifest.breaker.clone());
                let mut by_task = breakers.by_task.lock();
                let breaker = by_task.entry(task.clone()).or_default();
                breaker.restore(&policy.unwrap_or_default(), Duration::ZERO);
            }
        }
        breakers
    }

    /// Admits an entry, unless the breaker of its task is open.
    pub(crate) fn admit(&self, entry: &Entry) -> Option<Admitted<'_>> {
        let now = self.started.elapsed();
        let mut by_task = self.by_task.lock();
        let is_admitted =
            by_task.get_mut(&entry.task).is_none_or(|breaker| breaker.admit(&entry.id, now));
        is_admitted.then(|| Admitted {
            breakers: self,
            task: entry.task.clone(),
            entry: entry.id.clone(),
        })
    }

    /// Returns whether the breaker of a task is closed.
    pub(crate) fn is_closed(&self, task: &TaskName) -> bool {
        self.by_task.lock().get(task).is_none_or(Breaker::is_closed)
    }

    /// Returns whether one entry of a task should be released as a trial.
    pub(crate) fn asks_for_trial(&self, task: &TaskName) -> bool {
        let now = self.started.elapsed();
        self.by_task.lock().get_mut(task).is_some_and(|breaker| breaker.asks_for_trial(now))
    }

    /// Has an open breaker try one message now, because an operator resumed the task.
    pub(crate) fn resume(&self, task: &TaskName) {
        if let Some(breaker) = self.by_task.lock().get_mut(task) {
            breaker.resume();
        }
    }

    /// Counts the outcome of a run. Pauses the task after too many consecutive failures, and resumes it
    /// after a trial that succeeded.
    pub(crate) async fn count(&self, task: &Task, run: &Run) {
        let policy = &task.manifest.breaker;
        let change = {
            let mut by_task = self.by_task.lock();
            let breaker = by_task.entry(task.name.clone()).or_default();
            breaker.count(policy, &run.entry, &run.outcome, self.started.elapsed())
        };
        let target = Target::Task(task.name.clone());
        match change {
            BreakerChange::None => (),
            BreakerChange::Opened { pause, was_trial } => {
                let failures = match (was_trial, &run.outcome) {
                    (true, Outcome::Aborted { .. }) => {
                        "the run of the message that was tried was cancelled".to_owned()
                    }
                    (true, _) => "the message that was tried failed".to_owned(),
                    (false, _) => format!(
                        "{} consecutive failures within {}",
                        policy.failures,
                        humantime::format_duration(policy.window)
                    ),
                };
                let reason = format!(
                    "{failures}; last outcome: {}; one message is tried after {}",
                    run.outcome,
                    humantime::format_duration(pause),
                );
                let by = PausedBy::Breaker;
                self.pauses.pause_automatically(target, by, &reason.into()).await;
            }
            BreakerChange::Closed => {
                tracing::info!("{target} works again: a message that was tried succeeded");
                self.pauses.end_automatically(target).await;
            }
        }
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        if let Some(breaker) = self.breakers.by_task.lock().get_mut(&self.task) {
            breaker.give_up(&self.entry);
        }
    }
}
