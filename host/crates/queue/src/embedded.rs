//! The embedded backend: all queues in one SQLite file, for a single machine.
//!
//! This module holds the lock that lets only one process consume the queues. Other processes can still
//! publish entries and inspect the queues. The module `rows` contains the schema and most SQL statements. The
//! module `claim` settles deliveries.

mod claim;
mod rows;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use loopabull_model::{Entry, QueueName, TaskName};
use loopabull_store::{Store, StoreError};
use parking_lot::Mutex;
use rusqlite::{Connection, params};
use tokio::sync::{Notify, OnceCell};
use tokio_util::sync::CancellationToken;

use crate::clock::{now_ms, steady_ms};
use crate::config::QueueConfig;
use crate::dead_letter::{DeadLetter, Verdict};
use crate::delivered::DeliveredEntry;
use crate::depth::{Depth, Held, HeldTask, Release};
use crate::error::QueueError;

pub(crate) use claim::Claim;
use rows::Claimed;

/// Interval at which one task looks for entries that other processes have published, and for retries that are due. It wakes
/// the idle workers.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Time within which a worker that is fast has delivered a group of claimed entries. A worker gives claimed entries back
/// while a run takes long.
const FAST: Duration = Duration::from_millis(500);

/// The queues in a SQLite file.
#[derive(Debug)]
pub struct Embedded {
    file: PathBuf,
    store: Arc<Store>,
    published: Arc<Notify>,
    /// Number of releases of held entries, which are delivered before claimed ones that follow them.
    releases: Arc<AtomicU64>,
    /// Claimed entries that could not be given back. The next claim does so.
    stranded: Arc<Stranded>,
    prefetches: HashMap<QueueName, u16>,
    /// The queues that have consumers.
    consumed: Arc<Mutex<BTreeSet<QueueName>>>,
    /// Lock file. The first `consume` locks the file. The lock ends when the queues are dropped.
    lock: OnceCell<File>,
}

/// Rows of claimed entries that are not delivered.
type Stranded = Mutex<Vec<i64>>;

/// A worker's consumer of an embedded queue.
///
/// It claims several entries in one change, so that fast tasks do not wait for a change each. The number doubles while the
/// worker needs the next group soon ([`FAST`]), up to the prefetch.
#[derive(Debug)]
pub struct Consumer {
    queue: QueueName,
    prefetch: usize,
    store: Arc<Store>,
    published: Arc<Notify>,
    releases: Arc<AtomicU64>,
    stranded: Arc<Stranded>,
    /// Entries that are claimed and not delivered yet.
    claimed: VecDeque<Claimed>,
    /// Number of entries to claim next, and the time of the last claim.
    group: usize,
    claimed_at: Instant,
    /// Whether claimed entries were given back since.
    is_slow: bool,
    /// The number of releases at the last claim.
    seen_releases: u64,
    /// Whether the last entry was a retry. Then the next one is a new entry, if there is one: retries that fail
    /// again and again take at most every second turn.
    was_retry: bool,
}

impl Embedded {
    pub(crate) fn open(file: &Path, queues: &[QueueConfig]) -> Result<Self, QueueError> {
        Ok(Self {
            file: file.to_owned(),
            store: Arc::new(Store::open(file, rows::SCHEMA)?),
            published: Arc::default(),
            releases: Arc::default(),
            stranded: Arc::default(),
            prefetches: queues.iter().map(|queue| (queue.name.clone(), queue.prefetch)).collect(),
            consumed: Arc::default(),
            lock: OnceCell::new(),
        })
    }

    pub(crate) async fn publish(&self, entry: &Entry) -> Result<(), QueueError> {
        let entry = entry.clone();
        self.store.change(move |connection| rows::insert(connection, &entry)).await?;
        self.published.notify_one();
        Ok(())
    }

    pub(crate) async fn publish_all(&self, entries: &[&Entry]) -> Vec<Result<(), QueueError>> {
        let rows: Vec<Entry> = entries.iter().copied().cloned().collect();
        let insert = move |connection: &Connection| {
            rows.iter().try_for_each(|entry| rows::insert(connection, entry).map(drop))
        };
        match self.store.change(insert).await {
            Ok(()) => {
                self.published.notify_waiters();
                self.published.notify_one();
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

    pub(crate) async fn consume(&self, queue: &QueueName) -> Result<Consumer, QueueError> {
        // The first call requeues all claimed entries. Other calls wait until the first call has finished, so
        // that their new claims are not requeued.
        self.lock.get_or_try_init(|| self.take_over()).await?;
        self.consumed.lock().insert(queue.clone());
        Ok(Consumer {
            queue: queue.clone(),
            prefetch: self.prefetches.get(queue).copied().unwrap_or(1).into(),
            store: Arc::clone(&self.store),
            published: Arc::clone(&self.published),
            releases: Arc::clone(&self.releases),
            stranded: Arc::clone(&self.stranded),
            claimed: VecDeque::new(),
            group: 1,
            claimed_at: Instant::now(),
            is_slow: false,
            seen_releases: 0,
            was_retry: false,
        })
    }

    pub(crate) async fn release(
        &self,
        release: impl Fn(&TaskName) -> Release,
    ) -> Result<BTreeSet<HeldTask>, QueueError> {
        let mut others = BTreeSet::new();
        for (queue, task) in self.store.look_up(rows::held)? {
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
            if self.store.change(change).await? > 0 {
                self.releases.fetch_add(1, Ordering::Relaxed);
                self.published.notify_waiters();
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
            let page = self.store.read(page).await?;
            if page.is_empty() {
                self.published.notify_one();
                return Ok(done);
            }
            for (id, letter) in page {
                last = id;
                let verdict = judge(&letter);
                if verdict != Verdict::Keep {
                    let change = move |connection: &Connection| {
                        rows::carry_out(connection, id, &letter, verdict)
                    };
                    done += self.store.change(change).await? as u64;
                }
            }
        }
    }

    pub(crate) async fn depth(&self, queue: &QueueName) -> Result<Depth, QueueError> {
        let (now, steady, queue) = (now_ms(), steady_ms(), queue.to_string());
        let count = move |connection: &Connection| {
            connection
                .prepare(
                    "SELECT CASE WHEN state = 'waiting' AND due_ms <> queued_ms AND due_ms > ?2
                                 THEN 'delayed' ELSE state END AS what,
                         CASE state WHEN 'held' THEN task END AS held,
                         count(*), min(max(queued_ms, min(due_ms, ?2))), max(due_ms)
                     FROM entries WHERE queue = ?1 GROUP BY what, held",
                )?
                .query_map(params![queue, steady], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
                })?
                .collect::<rusqlite::Result<Vec<(String, Option<String>, u64, i64, i64)>>>()
        };
        let mut depth = Depth { claimed: Some(0), ..Depth::default() };
        for (state, task, count, oldest, last_due) in self.store.read(count).await? {
            let oldest = milliseconds(now.saturating_sub(oldest));
            match state.as_str() {
                "waiting" => {
                    depth.waiting = count;
                    depth.oldest = Some(oldest);
                }
                "delayed" => {
                    depth.delayed = count;
                    depth.longest_delay = Some(milliseconds(last_due.saturating_sub(steady)));
                }
                "held" => {
                    // An entry is stored with a valid name of its task.
                    if let Some(task) = task.and_then(|task| TaskName::try_from(task).ok()) {
                        depth.held.insert(task, Held { count, oldest: Some(oldest) });
                    }
                }
                "claimed" => depth.claimed = Some(count),
                _ => depth.dead = count,
            }
        }
        Ok(depth)
    }

    pub(crate) async fn end_delays(&self, queue: &QueueName) -> Result<u64, QueueError> {
        let queue = queue.to_string();
        let ended = move |connection: &Connection| rows::end_delays(connection, &queue);
        let count = self.store.change(ended).await?;
        self.published.notify_waiters();
        Ok(count as u64)
    }

    pub(crate) async fn shrink(&self) -> Result<(), StoreError> {
        self.store.shrink().await
    }

    /// Makes this process the only consumer of the file, and requeues all claimed entries. The lock was free,
    /// so the process that claimed them has ended.
    async fn take_over(&self) -> Result<File, QueueError> {
        let name = self.file.with_extension("lock");
        let error = |source| QueueError::Lock { file: name.clone(), source };
        let lock = File::create(&name).map_err(error)?;
        match lock.try_lock() {
            Ok(()) => (),
            Err(TryLockError::WouldBlock) => {
                return Err(QueueError::Locked { file: self.file.clone() });
            }
            Err(TryLockError::Error(source)) => return Err(error(source)),
        }
        self.store.change(rows::take_over).await?;
        let (store, consumed) = (Arc::downgrade(&self.store), Arc::clone(&self.consumed));
        let stranded = Arc::clone(&self.stranded);
        tokio::spawn(wake_idle(store, consumed, stranded, Arc::clone(&self.published)));
        Ok(lock)
    }
}

/// Wakes idle workers if an entry waits for one of the queues, until the queues are closed. An error is left to the workers,
/// which see it when they claim.
async fn wake_idle(
    store: Weak<Store>,
    consumed: Arc<Mutex<BTreeSet<QueueName>>>,
    stranded: Arc<Stranded>,
    published: Arc<Notify>,
) {
    loop {
        tokio::time::sleep(POLL_INTERVAL).await;
        let Some(store) = store.upgrade() else { return };
        let queues = consumed.lock().clone();
        let is_waiting = store.look_up(|connection| {
            for queue in &queues {
                if rows::is_waiting(connection, queue.as_str())? {
                    return Ok(true);
                }
            }
            Ok(false)
        });
        if is_waiting.unwrap_or(true) || !stranded.lock().is_empty() {
            published.notify_waiters();
        }
    }
}

impl Consumer {
    pub(crate) async fn receive(
        &mut self,
        stop: &CancellationToken,
    ) -> Result<Option<(DeliveredEntry, Claim)>, QueueError> {
        while !stop.is_cancelled() {
            if self.releases.load(Ordering::Relaxed) != self.seen_releases {
                self.give_back().await?;
            }
            if self.claimed.is_empty() {
                self.claim().await?;
            }
            if let Some(claimed) = self.claimed.pop_front() {
                self.was_retry = claimed.is_retry;
                let claim = Claim::new(claimed.row, &self.store, &self.published);
                return Ok(Some((claimed.delivered, claim)));
            }
            // Both futures may be dropped, because nothing is claimed during the wait.
            tokio::select! {
                () = self.published.notified() => (),
                () = stop.cancelled() => (),
            }
        }
        Ok(None)
    }

    /// Returns the entries that were claimed and not delivered to their positions in the queue. The next claim takes one
    /// entry.
    pub(crate) async fn give_back(&mut self) -> Result<(), QueueError> {
        self.is_slow = true;
        let claimed = self.claimed.drain(..).map(|claimed| claimed.row);
        self.stranded.lock().extend(claimed);
        let rows = std::mem::take(&mut *self.stranded.lock());
        if rows.is_empty() {
            return Ok(());
        }
        let (store, stranded, published) =
            (Arc::clone(&self.store), Arc::clone(&self.stranded), Arc::clone(&self.published));
        // A task of its own, because this future may be dropped: the change is carried out once, or its rows are stranded
        // again.
        let given_back = tokio::spawn(async move {
            let rows = Arc::new(rows);
            let given = Arc::clone(&rows);
            let give_back = move |connection: &Connection| rows::give_back(connection, &given);
            let changed = store.change_unsynced(give_back).await;
            match &changed {
                Ok(()) => published.notify_waiters(),
                Err(_) => stranded.lock().extend(rows.iter()),
            }
            changed
        });
        given_back.await.unwrap_or(Ok(())).map_err(QueueError::from)
    }

    async fn claim(&mut self) -> Result<(), QueueError> {
        if !self.stranded.lock().is_empty() {
            self.give_back().await?;
        }
        let is_fast = !std::mem::take(&mut self.is_slow) && self.claimed_at.elapsed() < FAST;
        self.group = if is_fast { (self.group * 2).min(self.prefetch) } else { 1 };
        self.seen_releases = self.releases.load(Ordering::Relaxed);
        let (queue, is_new_first, count) = (self.queue.to_string(), self.was_retry, self.group);
        let claim =
            move |connection: &Connection| rows::claim(connection, &queue, is_new_first, count);
        // A claim ends with this process anyway.
        self.claimed = self.store.change_unsynced(claim).await?;
        self.claimed_at = Instant::now();
        if self.claimed.len() == self.group {
            // More entries may wait for other workers.
            self.published.notify_one();
        }
        // A worker that found fewer is faster than the entries come.
        self.group = self.claimed.len().max(1);
        Ok(())
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.stranded.lock().extend(self.claimed.drain(..).map(|claimed| claimed.row));
    }
}

fn milliseconds(count: i64) -> Duration {
    Duration::from_millis(u64::try_from(count).unwrap_or_default())
}
