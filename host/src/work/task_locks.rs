//! Task locks: either several runs of a task share its lock, or one run holds the lock exclusively.
//!
//! A run conflicts if another run changed the state that the run had read. The conflicting run is
//! repeated with the exclusive lock, so that it cannot conflict again. External effects of a run,
//! such as HTTP requests, are therefore repeated at most once because of conflicts.

use std::collections::HashMap;
use std::sync::Arc;

use loopabull_model::TaskName;
use parking_lot::Mutex;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// The locks of all tasks that have state.
#[derive(Debug, Default)]
pub(crate) struct TaskLocks(Mutex<HashMap<TaskName, Arc<RwLock<()>>>>);

/// A held lock, which is released when it is dropped. A run holds the lock until the run is
/// recorded.
#[derive(Debug)]
pub(crate) enum TaskLock {
    Shared { _guard: OwnedRwLockReadGuard<()> },
    Exclusive { _guard: OwnedRwLockWriteGuard<()> },
}

impl TaskLocks {
    /// Acquires the shared lock. Waits until no run of the task holds the exclusive lock.
    pub(crate) async fn shared(&self, task: &TaskName) -> TaskLock {
        TaskLock::Shared { _guard: self.lock_of(task).read_owned().await }
    }

    /// Acquires the exclusive lock. Waits until no other run of the task is in progress, and
    /// prevents new runs.
    pub(crate) async fn exclusive(&self, task: &TaskName) -> TaskLock {
        TaskLock::Exclusive { _guard: self.lock_of(task).write_owned().await }
    }

    fn lock_of(&self, task: &TaskName) -> Arc<RwLock<()>> {
        Arc::clone(self.0.lock().entry(task.clone()).or_default())
    }
}
