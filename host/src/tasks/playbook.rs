//! A loaded playbook: its directory, its secrets, and the result of its check with Ansible.
//!
//! Each loaded playbook is checked once: in the background, or before its first run if that comes
//! earlier. The catalog refuses a playbook whose check failed. This module does not decide when a
//! playbook is checked again.

use std::sync::Arc;
use std::time::Duration;

use loopabull_model::{Task, chain};
use loopabull_playbook::{CheckError, PlaybookDir, Playbooks, Secrets};
use parking_lot::Mutex;

/// Timeout for the check of one playbook.
const CHECK_TIMEOUT: Duration = Duration::from_secs(60);

/// A loaded playbook. Ansible reads the playbook itself at each run.
#[derive(Debug)]
pub(crate) struct LoadedPlaybook {
    pub dir: Arc<PlaybookDir>,
    pub secrets: Arc<Secrets>,
    check: Mutex<Check>,
    /// Held while Ansible checks the playbook. Other callers wait for the result.
    checking: tokio::sync::Mutex<()>,
}

/// The result of a check.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Check {
    /// The playbook was not checked yet.
    Pending,
    Passed,
    Failed {
        reason: String,
    },
}

impl LoadedPlaybook {
    pub(super) fn new(dir: Arc<PlaybookDir>, secrets: Secrets) -> Self {
        Self {
            dir,
            secrets: Arc::new(secrets),
            check: Mutex::new(Check::Pending),
            checking: tokio::sync::Mutex::default(),
        }
    }

    /// Returns whether the playbook was not checked yet.
    pub(crate) fn is_pending(&self) -> bool {
        *self.check.lock() == Check::Pending
    }

    /// Returns the reason why the last check failed.
    pub(crate) fn failure(&self) -> Option<String> {
        match &*self.check.lock() {
            Check::Failed { reason } => Some(reason.clone()),
            Check::Pending | Check::Passed => None,
        }
    }

    /// Checks the playbook if it was not checked yet. An error means that the machine is short of
    /// something, and that the playbook is still not checked.
    pub(crate) async fn check(&self, task: &Task, playbooks: &Playbooks) -> Result<(), CheckError> {
        if !self.is_pending() {
            return Ok(());
        }
        let _checking = self.checking.lock().await;
        if !self.is_pending() {
            return Ok(());
        }
        self.run_check(task, playbooks).await
    }

    /// Checks the playbook again. An error means that the machine is short of something, and that
    /// the earlier result remains.
    pub(crate) async fn check_again(
        &self,
        task: &Task,
        playbooks: &Playbooks,
    ) -> Result<(), CheckError> {
        let _checking = self.checking.lock().await;
        self.run_check(task, playbooks).await
    }

    /// Refuses the playbook without a check, because this host cannot run playbooks.
    pub(crate) fn fail(&self, task: &Task, reason: String) {
        self.set(task, Check::Failed { reason });
    }

    async fn run_check(&self, task: &Task, playbooks: &Playbooks) -> Result<(), CheckError> {
        let check = match playbooks.check(task, &self.dir, &self.secrets, CHECK_TIMEOUT).await {
            Ok(()) => Check::Passed,
            Err(error) if error.is_shortage() => return Err(error),
            Err(error) => Check::Failed { reason: chain(error) },
        };
        self.set(task, check);
        Ok(())
    }

    fn set(&self, task: &Task, check: Check) {
        let before = std::mem::replace(&mut *self.check.lock(), check.clone());
        match (before, check) {
            (before, after) if before == after => (),
            (_, Check::Failed { reason }) => {
                tracing::error!("`{}.yml`: refused: {reason}", task.name);
            }
            (Check::Failed { .. }, _) => {
                tracing::info!("`{}.yml`: not refused any more", task.name)
            }
            _ => (),
        }
    }
}
