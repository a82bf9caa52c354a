//! The tasks that have held entries, and those whose held entries are being released.
//!
//! Knows nothing of the broker. The held entries of a task are in a queue of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use loopabull_model::{QueueName, TaskName};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Notify, OwnedMutexGuard};

/// A queue and a task of it.
pub(super) type Key = (QueueName, TaskName);

/// The tasks that have held entries, and those whose held entries are being released.
#[derive(Debug, Default)]
pub(super) struct HeldTasks {
    /// The tasks that have a queue of held entries.
    held: Mutex<BTreeSet<Key>>,
    /// The tasks whose held entries are being released. Each lock covers taking the last held entry, so
    /// that an entry that is held back meanwhile is not left behind.
    releasing: Mutex<BTreeMap<Key, Arc<AsyncMutex<()>>>>,
    /// Notified when a release starts.
    pub(super) released: Notify,
}

impl HeldTasks {
    /// Notes that a task has a queue of held entries.
    pub(super) fn note(&self, queue: &QueueName, task: &TaskName) {
        self.held.lock().insert((queue.clone(), task.clone()));
    }

    /// Forgets a task whose queue of held entries is empty or missing.
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

    /// Returns the tasks of a queue whose held entries are being released, with their locks.
    pub(super) fn releasing_of(&self, queue: &QueueName) -> Vec<(Key, Arc<AsyncMutex<()>>)> {
        let releasing = self.releasing.lock();
        let of_queue = releasing.iter().filter(|((of, _), _)| of == queue);
        of_queue.map(|(key, lock)| (key.clone(), Arc::clone(lock))).collect()
    }

    /// Locks a task while its held entries are being released. Returns `None` if they are not.
    pub(super) async fn lock_if_releasing(&self, key: &Key) -> Option<OwnedMutexGuard<()>> {
        let lock = self.releasing.lock().get(key).cloned()?;
        let guard = lock.lock_owned().await;
        // The last held entry may have been taken meanwhile.
        self.is_releasing(key).then_some(guard)
    }
}
