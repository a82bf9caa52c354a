//! The tasks that have held entries, and the tasks whose held entries are being released.
//!
//! The held entries themselves are on the broker, in a separate queue for each task. This module only keeps
//! the lists of tasks, and does not use the broker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use loopabull_model::{QueueName, TaskName};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Notify, OwnedMutexGuard};

/// A queue, and a task that uses it.
pub(super) type Key = (QueueName, TaskName);

/// The tasks that have held entries, and the tasks whose held entries are being released.
#[derive(Debug, Default)]
pub(super) struct HeldTasks {
    /// Tasks that have a queue of held entries.
    held: Mutex<BTreeSet<Key>>,
    /// Tasks whose held entries are being released, each with its lock. A consumer holds the lock while it
    /// takes an entry from the queue of held entries or adds one. Without the lock, a release could end while
    /// an entry is being added, and that entry would stay held.
    releasing: Mutex<BTreeMap<Key, Arc<AsyncMutex<()>>>>,
    /// Notified when a release starts.
    pub(super) released: Notify,
}

impl HeldTasks {
    /// Adds a task that has a queue of held entries.
    pub(super) fn note(&self, queue: &QueueName, task: &TaskName) {
        self.held.lock().insert((queue.clone(), task.clone()));
    }

    /// Removes a task whose queue of held entries is empty or missing.
    pub(super) fn forget(&self, key: &Key) {
        self.held.lock().remove(key);
    }

    pub(super) fn all(&self) -> BTreeSet<Key> {
        self.held.lock().clone()
    }

    pub(super) fn tasks_of(&self, queue: &QueueName) -> Vec<TaskName> {
        let held = self.held.lock();
        held.iter().filter(|(of, _)| of == queue).map(|(_, task)| task.clone()).collect()
    }

    pub(super) fn is_releasing(&self, key: &Key) -> bool {
        self.releasing.lock().contains_key(key)
    }

    /// Starts to release the held entries of a task, and wakes the idle consumers.
    pub(super) fn start_release(&self, key: Key) {
        self.releasing.lock().insert(key, Arc::default());
        self.released.notify_waiters();
    }

    pub(super) fn end_release(&self, key: &Key) {
        self.releasing.lock().remove(key);
    }

    /// Returns the tasks of a queue whose held entries are being released, each with its lock.
    pub(super) fn releasing_of(&self, queue: &QueueName) -> Vec<(Key, Arc<AsyncMutex<()>>)> {
        let releasing = self.releasing.lock();
        let of_queue = releasing.iter().filter(|((of, _), _)| of == queue);
        of_queue.map(|(key, lock)| (key.clone(), Arc::clone(lock))).collect()
    }

    /// Locks a task whose held entries are being released. Returns `None` if there is no release of this
    /// task.
    pub(super) async fn lock_if_releasing(&self, key: &Key) -> Option<OwnedMutexGuard<()>> {
        let lock = self.releasing.lock().get(key).cloned()?;
        let guard = lock.lock_owned().await;
        // The release may have ended while we waited for the lock.
        self.is_releasing(key).then_some(guard)
    }
}
