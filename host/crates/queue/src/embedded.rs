//! The embedded backend: all queues in one table of a SQLite file, for a single machine.
//!
//! The file belongs to the caller, which has tables of its own in it. So the caller can record a run and settle its delivery
//! in one transaction ([`FileSettlement`]). One process consumes the queues, which a lock ensures. Other processes can still
//! publish entries and inspect the queues.
//!
//! The module `rows` has the table and the SQL statements that change it, `depth` and `whereabouts` those that tell. `claims` has the claims
//! of the consumers, which live in memory: they end with the process anyway. `consumer` claims, `claim` settles, `shared` is
//! the open file, and `earlier` takes over the file of an earlier version.

mod claim;
mod claims;
mod consumer;
mod depth;
mod earlier;
mod lock;
mod rows;
mod shared;
mod whereabouts;

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use loopabull_model::{Entry, EntryId, QueueName, TaskName, chain};
use loopabull_store::Store;
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::OnceCell;

use crate::config::QueueConfig;
use crate::dead_letter::{DeadLetter, Verdict};
use crate::depth::{Depth, HeldTask, Release};
use crate::error::QueueError;
use crate::whereabouts::Whereabouts;

pub(crate) use claim::Claim;
pub use claim::FileSettlement;
pub(crate) use consumer::Consumer;
pub use earlier::earlier_file;
use lock::try_lock;
pub use rows::{HasRuns, TABLES, insert};
use shared::Shared;

/// Interval at which one task looks for entries that other processes have published, and for retries that are due. It wakes
/// the idle workers.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Interval at which the process that consumes the queues looks for the file of an earlier version.
const EARLIER_INTERVAL: Duration = Duration::from_secs(2);

/// Time to wait for another process that has locked the queues.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// The queues in a SQLite file.
#[derive(Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
    prefetches: HashMap<QueueName, u16>,
    /// The queues that have consumers.
    consumed: Arc<Mutex<BTreeSet<QueueName>>>,
    /// Lock file. The first `consume` locks the file. The lock ends when the queues are dropped.
    lock: OnceCell<File>,
}

impl Embedded {
    /// Opens the queues in an open file.
    pub(crate) fn new(
        store: Arc<Store>,
        has_runs: Option<HasRuns>,
        queues: &[QueueConfig],
    ) -> Self {
        Self {
            shared: Arc::new(Shared::new(store, has_runs)),
            prefetches: queues.iter().map(|queue| (queue.name.clone(), queue.prefetch)).collect(),
            consumed: Arc::default(),
            lock: OnceCell::new(),
        }
    }

    /// Takes over the entries of an earlier version, if there are some.
    pub(crate) async fn take_over_earlier(&self) -> Result<(), QueueError> {
        earlier::take_over(&self.shared.store).await
    }

    pub(crate) async fn publish(&self, entry: &Entry) -> Result<(), QueueError> {
        let entry = entry.clone();
        self.shared.store.change(move |connection| rows::insert(connection, &entry)).await?;
        self.shared.published.notify_one();
        Ok(())
    }

    pub(crate) async fn publish_all(&self, entries: &[&Entry]) -> Vec<Result<(), QueueError>> {
        let rows: Vec<Entry> = entries.iter().copied().cloned().collect();
        let insert = move |connection: &Connection| {
            rows.iter().try_for_each(|entry| rows::insert(connection, entry).map(drop))
        };
        match self.shared.store.change(insert).await {
            Ok(()) => {
                self.wake();
                entries.iter().map(|_| Ok(())).collect()
            }
            // Only each entry alone tells which one cannot be stored.
            Err(_) => {
                let (mut results, mut failed) = (Vec::new(), BTreeSet::new());
                for entry in entries {
                    let queue = &entry.queue;
                    let published = match failed.contains(queue) {
                        true => Err(QueueError::Behind { queue: queue.to_string() }),
                        false => self.publish(entry).await,
                    };
                    if published.is_err() {
                        failed.insert(queue);
                    }
                    results.push(published);
                }
                results
            }
        }
    }

    pub(crate) fn problem(&self) -> Option<String> {
        self.shared.problem.lock().clone()
    }

    pub(crate) fn wake(&self) {
        self.shared.published.notify_waiters();
        self.shared.published.notify_one();
    }

    pub(crate) async fn consume(&self, queue: &QueueName) -> Result<Consumer, QueueError> {
        // Other calls wait until the first one has the lock.
        self.lock.get_or_try_init(|| self.begin_to_consume()).await?;
        self.consumed.lock().insert(queue.clone());
        let prefetch = self.prefetches.get(queue).copied().unwrap_or(1);
        Ok(Consumer::new(queue.clone(), prefetch.into(), Arc::clone(&self.shared)))
    }

    pub(crate) async fn release(
        &self,
        release: impl Fn(&TaskName) -> Release,
    ) -> Result<BTreeSet<HeldTask>, QueueError> {
        let mut others = BTreeSet::new();
        for (queue, task) in self.shared.store.look_up(rows::held)? {
            let names = (QueueName::try_from(queue.as_str()), TaskName::try_from(task.as_str()));
            let (Ok(queue_name), Ok(task_name)) = names else { continue };
            let limit = match release(&task_name) {
                Release::Nothing => {
                    others.insert((queue_name, task_name));
                    continue;
                }
                Release::One => 1,
                Release::All => -1,
            };
            let change =
                move |connection: &Connection| rows::release(connection, &queue, &task, limit);
            if self.shared.store.change(change).await? > 0 {
                self.shared.releases.fetch_add(1, Ordering::Relaxed);
                self.shared.published.notify_waiters();
            }
        }
        Ok(others)
    }

    pub(crate) async fn judge_dead_letters(
        &self,
        queue: &QueueName,
        mut judge: impl FnMut(&DeadLetter) -> Verdict + Send,
    ) -> Result<u64, QueueError> {
        let (mut last, mut done) = (0, 0);
        loop {
            let name = queue.to_string();
            let page = move |connection: &Connection| rows::dead_letters(connection, &name, last);
            let page = self.shared.store.read(page).await?;
            if page.is_empty() {
                self.shared.published.notify_one();
                return Ok(done);
            }
            for (id, letter) in page {
                last = id;
                let verdict = judge(&letter);
                if verdict != Verdict::Keep {
                    let change = move |connection: &Connection| {
                        rows::carry_out(connection, id, &letter, verdict)
                    };
                    done += self.shared.store.change(change).await? as u64;
                }
            }
        }
    }

    pub(crate) async fn depth(&self, queue: &QueueName) -> Result<Depth, QueueError> {
        let (name, claimed) = (queue.to_string(), self.shared.claims.of(queue));
        let count = move |connection: &Connection| depth::count(connection, &name, &claimed);
        let depth = self.shared.store.read(count).await?;
        // Only the process that consumes the queues knows what is claimed.
        let is_consumer = self.shared.has_runs.is_some() || self.lock.initialized();
        let claimed = depth.claimed.filter(|_| is_consumer);
        Ok(Depth { claimed, ..depth })
    }

    pub(crate) async fn whereabouts(
        &self,
        entry: &EntryId,
    ) -> Result<Option<Whereabouts>, QueueError> {
        let (entry, shared) = (entry.clone(), Arc::clone(&self.shared));
        let find = move |connection: &Connection| {
            whereabouts::find(connection, &entry, |queue| shared.claims.of(queue))
        };
        Ok(self.shared.store.read(find).await?)
    }

    pub(crate) async fn end_delays(&self, queue: &QueueName) -> Result<u64, QueueError> {
        let queue = queue.to_string();
        let ended = move |connection: &Connection| rows::end_delays(connection, &queue);
        let count = self.shared.store.change(ended).await?;
        self.shared.published.notify_waiters();
        Ok(count as u64)
    }

    /// Makes this process the only consumer of the file.
    async fn begin_to_consume(&self) -> Result<File, QueueError> {
        let file = self.shared.store.path();
        let start = Instant::now();
        let lock = loop {
            match try_lock(file)? {
                Some(lock) => break lock,
                // A command may be taking over the entries of an earlier version.
                None if start.elapsed() < LOCK_TIMEOUT => tokio::time::sleep(POLL_INTERVAL).await,
                None => return Err(QueueError::Locked { file: file.to_owned() }),
            }
        };
        self.shared.store.change(rows::begin_delays_again).await?;
        let (shared, consumed) = (Arc::downgrade(&self.shared), Arc::clone(&self.consumed));
        tokio::spawn(take_over_later(shared.clone()));
        tokio::spawn(wake_idle(shared, consumed));
        Ok(lock)
    }
}

/// Takes over what a command of an earlier version publishes into its own file, until the queues are closed.
async fn take_over_later(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(EARLIER_INTERVAL).await;
        let Some(shared) = shared.upgrade() else { return };
        let mut problem = None;
        if let Some(file) = earlier_file(shared.store.path()) {
            match earlier::move_entries(&shared.store, &file).await {
                Ok(()) => shared.published.notify_waiters(),
                Err(error) => problem = Some(format!("messages wait: {}", chain(error))),
            }
        }
        *shared.problem.lock() = problem;
    }
}

/// Wakes idle workers if an entry waits for one of the queues, until the queues are closed. An error is left to the workers,
/// which see it when they claim.
async fn wake_idle(shared: Weak<Shared>, consumed: Arc<Mutex<BTreeSet<QueueName>>>) {
    loop {
        tokio::time::sleep(POLL_INTERVAL).await;
        let Some(shared) = shared.upgrade() else { return };
        let queues = consumed.lock().clone();
        let is_waiting = queues.iter().any(|queue| shared.is_waiting(queue).unwrap_or(true));
        if is_waiting {
            shared.published.notify_waiters();
        }
    }
}
