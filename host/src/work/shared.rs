//! The workplace: what all workers of a daemon share.
//!
//! Owns the rules that concern more than one delivery: which entries are being worked right now, and
//! when a task is paused by itself.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use loopabull_model::{Breaker, EntryId, Reason, Run, Task, TaskName};
use loopabull_queue::Queues;

use crate::config::RefusedTasks;
use crate::error::chain;
use crate::journal::{AfterQueues, Journal};
use crate::observe::metrics::Metrics;
use crate::observe::status::Board;
use crate::shutdown::Shutdown;
use crate::tasks::catalog::Catalog;
use crate::work::pauses::{Pauses, Target};
use crate::work::runner::Runner;
use crate::work::task_locks::Turns;

/// How many daemons in a row may die with a task before it is paused. A single entry is not run any
/// more after fewer.
const MOST_CRASHES: u32 = 5;

/// What all workers of a daemon share.
pub(crate) struct Workplace {
    pub queues: Arc<Queues>,
    pub runner: Arc<Runner>,
    pub journal: Arc<Journal>,
    pub pauses: Arc<Pauses>,
    pub board: Arc<Board>,
    pub metrics: Arc<Metrics>,
    pub shutdown: Shutdown,
    pub breakers: Breakers,
    pub running: Running,
    pub turns: Turns,
    /// Where what tasks send goes after the queues.
    pub after_queues: AfterQueues,
    /// What becomes of messages whose task is refused.
    pub refused_tasks: RefusedTasks,
}

/// The circuit breakers of all tasks.
#[derive(Debug)]
pub(crate) struct Breakers {
    started: Instant,
    by_task: Mutex<HashMap<TaskName, Breaker>>,
}

/// The entries that are being worked.
#[derive(Debug, Default)]
pub(crate) struct Running(Mutex<HashSet<EntryId>>);

/// One entry that is being worked, until this is dropped.
#[derive(Debug)]
pub(crate) struct InWork<'a> {
    running: &'a Running,
    entry: EntryId,
}

impl Workplace {
    /// Counts what a run came to, and pauses its task if it failed too often in a row.
    pub(crate) async fn watch_over(&self, task: &Task, run: &Run) {
        if let Some(reason) = self.breakers.count(task, run) {
            self.pause(Target::Task(task.name.clone()), &reason).await;
        }
    }

    /// Pauses the tasks that were running each time when the last daemons died.
    pub(crate) async fn look_back(&self) {
        match self.journal.take_crashed().await {
            Ok(crashed) => {
                for crashed in crashed {
                    tracing::warn!(
                        task.name = %crashed.task,
                        "task `{}` was running when the last daemon died",
                        crashed.task,
                    );
                    if crashed.count >= MOST_CRASHES {
                        let reason =
                            format!("it was running when the last {} daemons died", crashed.count);
                        self.pause(Target::Task(crashed.task), &reason.into()).await;
                    }
                }
            }
            Err(error) => tracing::error!("cannot look back: {}", chain(error)),
        }
    }

    /// Reads what rests, and releases what is held of tasks that do not.
    pub(crate) async fn hear_of_pauses(&self) -> Result<(), String> {
        for target in self.pauses.refresh().await.map_err(chain)? {
            tracing::info!("{target} is resumed");
        }
        let catalog = self.runner.catalog.get();
        // A task that is gone does not rest either: what was held of it comes to its end.
        let is_awake = |task: &TaskName| {
            catalog.refused(task).is_none() && !self.pauses.rests(&Target::Task(task.clone()))
        };
        self.queues.release(is_awake).await.map_err(chain)
    }

    /// Puts another catalog in force, and shows what is wrong with its tasks.
    pub(crate) fn put_in_force(&self, catalog: Catalog) {
        let before = self.runner.catalog.get();
        for (name, _) in before.problems() {
            self.board.clear_trouble(&task_trouble(name));
        }
        let catalog = self.runner.catalog.replace(catalog);
        self.show_troubles(&catalog);
    }

    /// Shows what is wrong with the tasks of a catalog.
    pub(crate) fn show_troubles(&self, catalog: &Catalog) {
        for (name, trouble) in catalog.problems() {
            self.board.set_trouble(&task_trouble(name), &trouble);
        }
    }

    /// Lets something rest by itself.
    pub(crate) async fn pause(&self, target: Target, reason: &Reason) {
        tracing::error!("{target} is paused: {reason}; `loopabull-host resume` ends that");
        if let Err(error) = self.pauses.pause(target, reason).await {
            tracing::error!("the pause ends with this daemon: {}", chain(error));
        }
    }
}

fn task_trouble(name: &TaskName) -> String {
    format!("task `{name}`")
}

impl Default for Breakers {
    fn default() -> Self {
        Self { started: Instant::now(), by_task: Mutex::default() }
    }
}

impl Breakers {
    /// Counts the outcome of a run; returns why its task is to be paused.
    fn count(&self, task: &Task, run: &Run) -> Option<Reason> {
        let policy = &task.manifest.breaker;
        let mut by_task = self.by_task.lock().unwrap_or_else(PoisonError::into_inner);
        let breaker = by_task.entry(task.name.clone()).or_default();
        let is_tripped = breaker.count(policy, &run.outcome, self.started.elapsed());
        let window = humantime::format_duration(policy.window);
        is_tripped.then(|| {
            let failures = policy.failures;
            format!(
                "it failed {failures} times in a row within {window}, the last: {}",
                run.outcome
            )
            .into()
        })
    }
}

impl Running {
    /// Notes that an entry is being worked, unless it is already.
    pub(crate) fn start(&self, entry: &EntryId) -> Option<InWork<'_>> {
        let is_new = self.entries().insert(entry.clone());
        is_new.then(|| InWork { running: self, entry: entry.clone() })
    }

    fn entries(&self) -> MutexGuard<'_, HashSet<EntryId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InWork<'_> {
    fn drop(&mut self) {
        self.running.entries().remove(&self.entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_worked_once_at_a_time() {
        let running = Running::default();
        let entry = EntryId::new("e");
        let in_work = running.start(&entry);
        assert!(in_work.is_some());
        assert!(running.start(&entry).is_none());
        drop(in_work);
        assert!(running.start(&entry).is_some());
    }
}
