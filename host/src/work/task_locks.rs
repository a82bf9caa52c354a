//! Turns: runs of one task side by side, or one alone.
//!
//! A run that another overtook, so that what it had read of its task's state was no longer so, is run
//! again alone: it cannot be overtaken a second time, and does outside what it does at most twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use loopabull_model::TaskName;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// The turns of all tasks that remember something.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<TaskName, Arc<RwLock<()>>>>);

/// A turn, until it is dropped: from before the run to after its record.
#[derive(Debug)]
pub(crate) enum Turn {
    Shared { _guard: OwnedRwLockReadGuard<()> },
    Alone { _guard: OwnedRwLockWriteGuard<()> },
}

impl Turns {
    /// Waits until no run of the task is alone.
    pub(crate) async fn share(&self, task: &TaskName) -> Turn {
        Turn::Shared { _guard: self.of(task).read_owned().await }
    }

    /// Waits until no other run of the task is under way, and lets none begin.
    pub(crate) async fn take(&self, task: &TaskName) -> Turn {
        Turn::Alone { _guard: self.of(task).write_owned().await }
    }

    fn of(&self, task: &TaskName) -> Arc<RwLock<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(task.clone()).or_default())
    }
}
