//! The queues that may have due retries, and those whose due retries cannot be received.
//!
//! This module only keeps the lists of queues, and does not use the broker.

use std::collections::{BTreeMap, BTreeSet};

use loopabull_model::QueueName;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::topology::QueueRole;

/// The queues that may have due retries.
#[derive(Debug, Default)]
pub(super) struct DueRetries {
    due: Mutex<BTreeSet<QueueName>>,
    /// Queues whose due retries cannot be received, each with the reason.
    problems: Mutex<BTreeMap<QueueName, String>>,
    /// Notified when a delay ends.
    pub(super) ended: Notify,
}

impl DueRetries {
    /// Returns the current problem, if there is one.
    pub(super) fn problem(&self) -> Option<String> {
        let problems = self.problems.lock();
        let (queue, reason) = problems.first_key_value()?;
        let name = QueueRole::Retry.name(queue);
        Some(format!("the retries in queue `{name}` cannot be received: {reason}"))
    }

    /// Sets the reason why the due retries of a queue cannot be received.
    pub(super) fn report(&self, queue: &QueueName, reason: String) {
        if self.problems.lock().insert(queue.clone(), reason.clone()).is_none() {
            let name = QueueRole::Retry.name(queue);
            tracing::error!("the retries in queue `{name}` cannot be received: {reason}");
        }
    }

    /// Returns whether the due retries of a queue could not be received.
    pub(super) fn has_problem(&self, queue: &QueueName) -> bool {
        self.problems.lock().contains_key(queue)
    }

    /// Removes the problem of a queue.
    pub(super) fn resolve(&self, queue: &QueueName) {
        self.problems.lock().remove(queue);
    }

    /// Returns whether retries of a queue may be due, and removes the mark.
    pub(super) fn take(&self, queue: &QueueName) -> bool {
        self.due.lock().remove(queue)
    }

    /// Marks that retries of a queue may be due, and wakes the idle workers.
    pub(super) fn mark(&self, queue: &QueueName) {
        self.due.lock().insert(queue.clone());
        self.ended.notify_waiters();
    }
}
