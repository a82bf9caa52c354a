//! The tasks that have held entries, and the tasks whose held entries are being released.
//!
//! The held entries themselves are on the broker, in a separate queue for each task. This module only keeps
//! the lists of tasks, and the queues of held entries that cannot be created. It does not use the broker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use loopabull_model::{QueueName, TaskName};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Notify, OwnedMutexGuard};

use crate::depth::HeldTask;

/// Interval at which the queues of held entries are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// The tasks that have held entries, and the tasks whose held entries are being released.
#[derive(Debug, Default)]
pub(super) struct HeldTasks {
    /// Tasks that have a queue of held entries, each with what is known about the queue.
    held: Mutex<BTreeMap<HeldTask, HeldQueue>>,
    /// Tasks whose held entries are being released.
    releasing: Mutex<BTreeMap<HeldTask, Releasing>>,
    /// Queues of held entries that are missing and cannot be created, each with the reason.
    missing: Mutex<BTreeMap<HeldTask, String>>,
    /// Time of the last look at the queues.
    looked: Mutex<Option<Instant>>,
    /// Notified when a release starts.
    pub(super) released: Notify,
}

/// The state of a queue of held entries, as far as this host knows it. A count of 0 is no certainty: the broker also
/// returns it while the queue has no leader (`rabbit_quorum_queue:stat`).
#[derive(Clone, Copy, Debug)]
struct HeldQueue {
    /// Whether no entry was found at the last look.
    is_empty: bool,
    /// Whether an entry may have been added since the last look.
    has_changed: bool,
}

/// A release in progress.
#[derive(Clone, Debug)]
pub(super) struct Releasing {
    /// A consumer holds the lock while it takes an entry from the queue of held entries or adds one. Without the
    /// lock, a release could end while an entry is being added, and that entry would stay held.
    pub(super) lock: Arc<AsyncMutex<()>>,
    /// Whether the release ends after one entry.
    pub(super) is_single: bool,
}

impl HeldTasks {
    /// Adds a task that has a queue of held entries, or notes that an entry may have been added to the queue.
    pub(super) fn note(&self, queue: &QueueName, task: &TaskName) {
        let key = (queue.clone(), task.clone());
        self.missing.lock().remove(&key);
        self.held.lock().insert(key, HeldQueue { is_empty: false, has_changed: true });
    }

    /// Sets the reason why the queue of held entries of a task cannot be created. Returns whether the reason
    /// is new.
    pub(super) fn set_missing(&self, queue: &QueueName, task: &TaskName, reason: String) -> bool {
        let key = (queue.clone(), task.clone());
        self.missing.lock().insert(key, reason).is_none()
    }

    /// Returns whether it is time to look at the queues of held entries again: an operator may have created or
    /// emptied them.
    pub(super) fn is_time_to_look(&self) -> bool {
        let mut looked = self.looked.lock();
        let is_time = looked.is_none_or(|looked| looked.elapsed() >= LOOK_INTERVAL);
        if is_time {
            *looked = Some(Instant::now());
        }
        is_time
    }

    /// Returns whether the queue of held entries of a task is known to be unusable.
    pub(super) fn is_missing(&self, queue: &QueueName, task: &TaskName) -> bool {
        self.missing.lock().contains_key(&(queue.clone(), task.clone()))
    }

    /// Returns the queues of held entries that cannot be created, each with the reason.
    pub(super) fn missing(&self) -> BTreeMap<HeldTask, String> {
        self.missing.lock().clone()
    }

    /// Returns whether an entry may have been added to a queue since the last look. The caller looks now.
    pub(super) fn take_change(&self, key: &HeldTask) -> bool {
        let mut held = self.held.lock();
        held.get_mut(key).is_some_and(|queue| std::mem::take(&mut queue.has_changed))
    }

    /// Stores whether a queue was empty when it was looked at.
    pub(super) fn set_empty(&self, key: &HeldTask, is_empty: bool) {
        if let Some(queue) = self.held.lock().get_mut(key) {
            queue.is_empty = is_empty;
        }
    }

    pub(super) fn is_empty(&self, key: &HeldTask) -> bool {
        self.held.lock().get(key).is_none_or(|queue| queue.is_empty)
    }

    /// Removes a task whose queue of held entries is missing.
    pub(super) fn forget(&self, key: &HeldTask) {
        self.held.lock().remove(key);
    }

    pub(super) fn all(&self) -> BTreeSet<HeldTask> {
        self.held.lock().keys().cloned().collect()
    }

    pub(super) fn tasks_of(&self, queue: &QueueName) -> Vec<TaskName> {
        let held = self.held.lock();
        held.keys().filter(|(of, _)| of == queue).map(|(_, task)| task.clone()).collect()
    }

    pub(super) fn is_releasing(&self, key: &HeldTask) -> bool {
        self.releasing.lock().contains_key(key)
    }

    /// Starts to release the held entries of a task, and wakes the idle consumers.
    ///
    /// If `is_single`, the release ends after one entry.
    pub(super) fn start_release(&self, key: HeldTask, is_single: bool) {
        let releasing = Releasing { lock: Arc::default(), is_single };
        self.releasing.lock().insert(key, releasing);
        self.released.notify_waiters();
    }

    pub(super) fn end_release(&self, key: &HeldTask) {
        self.releasing.lock().remove(key);
    }

    /// Returns the tasks of a queue whose held entries are being released.
    pub(super) fn releasing_of(&self, queue: &QueueName) -> Vec<(HeldTask, Releasing)> {
        let releasing = self.releasing.lock();
        let of_queue = releasing.iter().filter(|((of, _), _)| of == queue);
        of_queue.map(|(key, releasing)| (key.clone(), releasing.clone())).collect()
    }

    /// Locks a task whose held entries are being released. Returns `None` if there is no release of this
    /// task.
    pub(super) async fn lock_if_releasing(&self, key: &HeldTask) -> Option<OwnedMutexGuard<()>> {
        let lock = self.releasing.lock().get(key).map(|releasing| Arc::clone(&releasing.lock))?;
        let guard = lock.lock_owned().await;
        // The release may have ended while we waited for the lock.
        self.is_releasing(key).then_some(guard)
    }
}
