//! Task locks: runs of one task are concurrent, or one run is exclusive.
//!
//! A run conflicts if another run changed the state that it had read. It is then repeated with an
//! exclusive lock, so that it cannot conflict a second time and repeats its outside effects at most
//! once.

use std::collections::HashMap;
use std::sync::Arc;

use loopabull_model::TaskName;
use parking_lot::Mutex;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// The locks of all tasks that have state.
#[derive(Debug, Default)]
pub(crate) struct TaskLocks(Mutex<HashMap<TaskName, Arc<RwLock<()>>>>);

/// A lock, until it is dropped. It is held from before a run until after its record.
#[derive(Debug)]
pub(crate) enum TaskLock {
    Shared { _guard: OwnedRwLockReadGuard<()> },
    Exclusive { _guard: OwnedRwLockWriteGuard<()> },
}

impl TaskLocks {
    /// Waits until no run of the task is exclusive.
    pub(crate) async fn shared(&self, task: &TaskName) -> TaskLock {
        TaskLock::Shared { _guard: self.lock_of(task).read_owned().await }
    }

    /// Waits until no other run of the task is in progress, and lets none start.
    pub(crate) async fn exclusive(&self, task: &TaskName) -> TaskLock {
        TaskLock::Exclusive { _guard: self.lock_of(task).write_owned().await }
    }

    fn lock_of(&self, task: &TaskName) -> Arc<RwLock<()>> {
        Arc::clone(self.0.lock().entry(task.clone()).or_default())
    }
}
