//! Watches the pauses, because the commands `pause` and `resume` can change them while the daemon
//! runs.
//!
//! The watcher rereads the pauses at an interval. Each time, it also releases the held entries of
//! all tasks whose messages need not wait. A release at the moment when a task is resumed
//! would not be enough: a worker may hold another entry of the task just afterwards. It reports the
//! tasks that have held entries and are not installed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use loopabull_model::{PausedBy, QueueName, Target, TaskName, chain};
use loopabull_queue::{Backoff, HeldTask, Queues, Release};
use tokio_util::sync::CancellationToken;

use crate::config::RefusedTasks;
use crate::observe::health::{Health, Part};
use crate::tasks::catalog::{Catalog, CurrentCatalog};
use crate::tasks::playbook::LoadedPlaybook;
use crate::work::breakers::Breakers;
use crate::work::error::WorkError;
use crate::work::pauses::Pauses;
use crate::work::unknown_tasks::UnknownTasks;

/// Interval at which the pauses are reread.
const POLL_INTERVAL: Duration = Duration::from_millis(300);

/// Rereads the pauses and releases held entries.
pub(crate) struct PauseWatcher {
    pub pauses: Arc<Pauses>,
    pub breakers: Arc<Breakers>,
    pub queues: Arc<Queues>,
    pub catalog: Arc<CurrentCatalog>,
    pub health: Arc<Health>,
    pub refused_tasks: RefusedTasks,
    pub unknown: UnknownTasks,
    /// Tasks that were prepared for holding their entries.
    pub known: BTreeSet<HeldTask>,
    pub drain: CancellationToken,
}

impl PauseWatcher {
    /// Watches until the daemon drains.
    pub(crate) async fn run(mut self) {
        let health = Arc::clone(&self.health);
        let condition = health.condition(Part::Pauses);
        let mut backoff = Backoff::default();
        let drain = self.drain.clone();
        while !drain.is_cancelled() {
            let polled = tokio::select! {
                polled = self.poll() => polled,
                () = drain.cancelled() => return,
            };
            match polled {
                Ok(()) => {
                    condition.resolve();
                    backoff.reset();
                    tokio::select! {
                        () = tokio::time::sleep(POLL_INTERVAL) => (),
                        () = self.drain.cancelled() => (),
                    }
                }
                Err(error) => {
                    let error = chain(error);
                    tracing::error!("cannot update the pauses: {error}; retrying");
                    condition.report(error);
                    backoff.pause(&self.drain).await;
                }
            }
        }
    }

    /// Rereads the pauses, and releases the entries of tasks whose messages need not wait.
    async fn poll(&mut self) -> Result<(), WorkError> {
        self.pauses.refresh().await?;
        for target in self.pauses.take_resumed() {
            tracing::info!("{target} is resumed");
            if let Target::Task(task) = &target {
                self.breakers.resume(task);
            }
        }
        let catalog = self.catalog.get();
        self.add_tasks(&catalog).await?;
        let is_refused = |task: &TaskName| {
            self.refused_tasks == RefusedTasks::Wait && catalog.refused(task).is_some()
        };
        let pauses = self.pauses.current();
        let release = |task: &TaskName| {
            let pause = pauses.get(&Target::Task(task.clone()));
            let is_pending = catalog.playbook(task).is_some_and(LoadedPlaybook::is_pending);
            let is_paused = pause.is_some_and(|pause| pause.by != PausedBy::Breaker);
            if is_paused || is_pending || is_refused(task) {
                Release::Nothing
            } else if self.breakers.is_closed(task) {
                Release::All
            } else if self.breakers.asks_for_trial(task) {
                Release::One
            } else {
                Release::Nothing
            }
        };
        let held = self.queues.release(release).await?;
        let is_unknown = |(_, task): &HeldTask| catalog.routes.task(task).is_none();
        if let Err(error) = self.unknown.update(held.into_iter().filter(is_unknown).collect()) {
            tracing::warn!("cannot remember the tasks that are not installed: {error}");
        }
        Ok(())
    }

    /// Prepares to hold entries of tasks that a reload has added.
    async fn add_tasks(&mut self, catalog: &Catalog) -> Result<(), WorkError> {
        let mut tasks_of: BTreeMap<QueueName, Vec<TaskName>> = BTreeMap::new();
        for task in catalog.routes.tasks() {
            tasks_of.entry(task.manifest.queue.clone()).or_default().push(task.name.clone());
        }
        for (queue, tasks) in tasks_of {
            let keys = || tasks.iter().map(|task| (queue.clone(), task.clone()));
            if keys().any(|key| !self.known.contains(&key)) {
                self.queues.add_tasks(&queue, &tasks).await?;
                self.known.extend(keys());
            }
        }
        Ok(())
    }
}
