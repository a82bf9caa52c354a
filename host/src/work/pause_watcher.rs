//! Watches the pauses, because the commands `pause` and `resume` can change them while the daemon
//! runs.
//!
//! The watcher rereads the pauses at an interval. Each time, it also releases the held entries of
//! all tasks that are neither refused nor paused. A release at the moment when a task is resumed
//! would not be enough: a worker may hold another entry of the task just afterwards.

use std::sync::Arc;
use std::time::Duration;

use loopabull_model::{Target, TaskName, chain};
use loopabull_queue::{Backoff, Queues};
use tokio_util::sync::CancellationToken;

use crate::observe::health::{Health, Part};
use crate::tasks::catalog::CurrentCatalog;
use crate::work::error::WorkError;
use crate::work::pauses::Pauses;
use crate::work::rests::Rests;

/// Interval at which the pauses are reread.
const POLL_INTERVAL: Duration = Duration::from_millis(300);

/// Rereads the pauses and releases held entries.
pub(crate) struct PauseWatcher {
    pub pauses: Arc<Pauses>,
    pub queues: Arc<Queues>,
    pub catalog: Arc<CurrentCatalog>,
    pub health: Arc<Health>,
    pub rests: Arc<Rests>,
    pub drain: CancellationToken,
}

impl PauseWatcher {
    /// Watches until the daemon drains.
    pub(crate) async fn run(self) {
        let condition = self.health.condition(Part::Pauses);
        let mut backoff = Backoff::default();
        while !self.drain.is_cancelled() {
            let polled = tokio::select! {
                polled = self.poll() => polled,
                () = self.drain.cancelled() => return,
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

    /// Rereads the pauses, and releases the entries of tasks that are neither refused nor paused.
    async fn poll(&self) -> Result<(), WorkError> {
        for target in self.pauses.refresh().await? {
            tracing::info!("{target} is resumed");
        }
        self.rests.expire();
        let catalog = self.catalog.get();
        // A removed task is neither refused nor paused, so its held entries are released. Their
        // runs fail, and the entries are dead-lettered after the last attempt.
        let is_released = |task: &TaskName| {
            catalog.refused(task).is_none() && !self.pauses.is_paused(&Target::Task(task.clone()))
        };
        Ok(self.queues.release(is_released).await?)
    }
}
