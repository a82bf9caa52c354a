//! Checks the playbooks with Ansible in the background.
//!
//! After the start and after each reload, the playbooks that were not checked yet are checked. A
//! playbook whose check failed is checked again at an interval, because a file that was missing, for
//! example a role or Ansible itself, may be there now. The daemon is not ready until each playbook was checked once. A
//! worker that needs a playbook earlier checks it itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use loopabull_model::{TaskName, chain};
use loopabull_playbook::CheckError;
use tokio_util::sync::CancellationToken;

use crate::observe::health::{Health, Part};
use crate::work::runner::Runner;
use crate::work::shared::Shared;

/// Minimum interval at which the playbooks whose check failed are checked again.
const INTERVAL: Duration = Duration::from_secs(10);
/// The interval is at least this many times as long as the checks took, so that they use a small
/// part of the processor time.
const INTERVAL_FACTOR: u32 = 10;
/// Delay after a check for which the machine was short of something.
const SHORTAGE_DELAY: Duration = Duration::from_secs(5);

/// The checks of the playbooks.
pub(super) struct PlaybookChecks {
    runner: Arc<Runner>,
    health: Arc<Health>,
    drain: CancellationToken,
}

impl PlaybookChecks {
    /// Creates the checks. The daemon is not ready until the first checks are done.
    pub(super) fn new(work: &Shared) -> Self {
        let checks = Self {
            runner: Arc::clone(&work.runner),
            health: Arc::clone(&work.health),
            drain: work.shutdown.drain.clone(),
        };
        checks.report_pending();
        checks
    }

    /// Checks until the daemon drains.
    pub(super) async fn run(self) {
        let mut reloads = self.runner.catalog.subscribe();
        let mut is_first = true;
        loop {
            let start = Instant::now();
            // A check can be dropped at any time. Its result is then missing.
            let checked = tokio::select! {
                checked = self.check_all(is_first) => checked,
                () = self.drain.cancelled() => return,
            };
            let delay = match checked {
                Ok(()) => {
                    is_first = false;
                    self.health.resolve(&Part::Playbooks);
                    INTERVAL.max(start.elapsed() * INTERVAL_FACTOR)
                }
                Err(error) => {
                    tracing::warn!("cannot check a playbook now; retrying: {}", chain(&error));
                    self.health.report(Part::Playbooks, chain(error));
                    SHORTAGE_DELAY
                }
            };
            tokio::select! {
                // The catalog outlives this part, so the result is always `Ok`.
                _ = reloads.changed() => (),
                () = tokio::time::sleep(delay) => (),
                () = self.drain.cancelled() => return,
            }
        }
    }

    /// Checks each playbook that has no result or a failure. Returns the last error.
    async fn check_all(&self, is_first: bool) -> Result<(), CheckError> {
        let catalog = self.runner.catalog.get();
        let names: Vec<TaskName> = catalog.playbooks().map(|(task, _)| task.name.clone()).collect();
        let failed = catalog.playbooks().filter(|(_, playbook)| playbook.failure().is_some());
        let failed: BTreeSet<_> = failed.map(|(task, _)| task.name.clone()).collect();
        let mut result = Ok(());
        for name in names {
            if is_first {
                self.report_pending();
            }
            // A reload may have changed or removed the playbook.
            let catalog = self.runner.catalog.get();
            result = result.and(self.runner.check(&catalog, &name).await);
            if let (Some(task), Some(playbook), Ok(playbooks)) =
                (catalog.routes.task(&name), catalog.playbook(&name), &self.runner.playbooks)
                && failed.contains(&name)
            {
                result = result.and(playbook.check_again(task, playbooks).await);
            }
        }
        result
    }

    fn report_pending(&self) {
        let catalog = self.runner.catalog.get();
        let (mut pending, mut all) = (0, 0);
        for (_, playbook) in catalog.playbooks() {
            all += 1;
            pending += u32::from(playbook.is_pending());
        }
        if pending > 0 {
            let problem = format!("{pending} of {all} are not checked yet");
            self.health.report(Part::Playbooks, problem);
        }
    }
}
