//! Admission decides whether the task of a delivery may run now.
//!
//! Admission does not run the task and does not settle the delivery. If the task must not run now,
//! it returns the settlement for the delivery.

use std::sync::Arc;
use std::time::Duration;

use loopabull_model::{Entry, PausedBy, Settlement, Target};
use tokio_util::sync::CancellationToken;

use crate::config::RefusedTasks;
use crate::tasks::catalog::Catalog;
use crate::work::breakers::{Admitted, Breakers};
use crate::work::in_progress::{EntriesInProgress, EntryInProgress};
use crate::work::pauses::Pauses;

/// Delay of a redelivered entry that this daemon is still processing.
const IN_PROGRESS_DELAY: Duration = Duration::from_secs(10);

/// Admits deliveries.
pub(crate) struct Admission {
    pub pauses: Arc<Pauses>,
    pub in_progress: EntriesInProgress,
    pub breakers: Arc<Breakers>,
    /// Treatment of messages whose task is refused.
    pub refused_tasks: RefusedTasks,
    pub drain: CancellationToken,
}

impl Admission {
    /// Marks an entry as in progress until the returned guards are dropped. If its task must not run
    /// now, returns the settlement of the delivery instead.
    pub(super) fn admit(
        &self,
        catalog: &Catalog,
        entry: &Entry,
    ) -> Result<(EntryInProgress<'_>, Admitted<'_>), Settlement> {
        if self.drain.is_cancelled() {
            return Err(Settlement::Requeue { after: Duration::ZERO });
        }
        // A circuit breaker has one entry tried while its task is paused.
        let pause = self.pauses.current().get(&Target::Task(entry.task.clone())).cloned();
        if pause.is_some_and(|pause| pause.by != PausedBy::Breaker) {
            return Err(Settlement::Hold);
        }
        if let Some(settlement) = self.refuse(catalog, entry) {
            return Err(settlement);
        }
        // The broker redelivers an entry if our claim on it is lost. If this daemon is still
        // processing the entry, the second delivery is requeued.
        let in_progress = self.in_progress.start(&entry.id).ok_or_else(|| {
            let id = &entry.message.id;
            tracing::warn!(message.id = %id, "message {id} is already in progress");
            Settlement::Requeue { after: IN_PROGRESS_DELAY }
        })?;
        let by_breaker = self.breakers.admit(entry).ok_or(Settlement::Hold)?;
        Ok((in_progress, by_breaker))
    }
    /// Returns the settlement of a delivery whose task is refused, or none if it is not refused.
    pub(super) fn refuse(&self, catalog: &Catalog, entry: &Entry) -> Option<Settlement> {
        let reason = catalog.refused(&entry.task)?;
        Some(match self.refused_tasks {
            RefusedTasks::Wait => Settlement::Hold,
            RefusedTasks::DeadLetter => {
                Settlement::dead_letter(format!("its task is refused: {reason}"))
            }
        })
    }
}
