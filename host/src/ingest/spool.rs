//! The spool: what a bus will not send again waits here while the work queue cannot take it.
//!
//! A file in the state directory, bounded in bytes, first in and first out for each queue: one that takes
//! nothing holds up no other. Owns their order and the limit; what becomes of an entry that does not fit is
//! the caller's. Before it: ingest; after it: [`Spool::forward`], which puts everything into the queues as
//! soon as they take it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use loopabull_model::{Entry, EntryId, QueueName};
use loopabull_queue::{Backoff, QueueError, Queues};
use loopabull_store::{Store, StoreError};
use rusqlite::{Row, params};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const VERSION: i32 = 1;
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS spooled (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        entry TEXT NOT NULL,
        queue TEXT NOT NULL,
        task TEXT NOT NULL,
        message TEXT NOT NULL
    ) STRICT;
    CREATE INDEX IF NOT EXISTS by_queue ON spooled (queue, number);";
/// How many entries are taken out of the file at a time.
const BATCH: usize = 64;
/// How soon the file is read again for an entry that is on its way there.
const SOON: Duration = Duration::from_millis(5);

/// Entries on their way to the work queues.
#[derive(Debug)]
pub(crate) struct Spool {
    store: Store,
    limit: u64,
    waiting: Mutex<Waiting>,
    filled: Notify,
}

/// What waits, and what is being written just now.
#[derive(Debug, Default)]
struct Waiting {
    bytes: u64,
    /// How many entries each queue has; only those that have any. By the text of the file, which may be
    /// no name of a queue.
    entries: BTreeMap<String, u64>,
}

/// Who hears what becomes of what waits.
pub(crate) trait Watcher: Sync {
    /// So many were taken by a queue.
    fn taken(&self, count: u64);

    /// One could not be put into its queue, and is tried again.
    fn failed(&self, error: &str);

    /// A queue will never take this. Returns whether it is kept elsewhere.
    fn refused(&self, entry: &Entry, why: &QueueError) -> impl Future<Output = bool> + Send;
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Spooled {
    /// It is on disk.
    Kept,
    /// There is no room for it.
    Full,
}

/// An entry as it is in the file.
struct Line {
    number: i64,
    bytes: u64,
    /// None, if it is of a version that wrote it otherwise.
    entry: Option<Entry>,
}

impl Spool {
    /// Opens the file. Messages may have so many bytes in it.
    ///
    /// # Errors
    ///
    /// If it cannot be opened or read.
    pub(crate) async fn open(path: &Path, limit: u64) -> Result<Self, StoreError> {
        let store = Store::open(path, SCHEMA, VERSION)?;
        let sql = "SELECT queue, count(*), sum(length(CAST(message AS BLOB)))
            FROM spooled GROUP BY queue";
        let rows: Vec<(String, u64, u64)> = store
            .read(move |connection| {
                let mut statement = connection.prepare(sql)?;
                let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
                statement.query_map([], row)?.collect()
            })
            .await?;
        let mut waiting = Waiting::default();
        for (queue, entries, bytes) in rows {
            waiting.add(&queue, entries, bytes);
        }
        Ok(Self { store, limit, waiting: Mutex::new(waiting), filled: Notify::new() })
    }

    /// Returns how many entries and bytes wait.
    pub(crate) fn depth(&self) -> (u64, u64) {
        let waiting = self.waiting();
        (waiting.entries.values().sum(), waiting.bytes)
    }

    /// Tells whether nothing waits for a queue, so that another entry may overtake nothing.
    pub(crate) fn is_empty(&self, queue: &QueueName) -> bool {
        !self.waiting().entries.contains_key(queue.as_str())
    }

    /// Puts an entry at the end. Returns when it is on disk.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub(crate) async fn push(&self, entry: &Entry) -> Result<Spooled, StoreError> {
        let message =
            serde_json::to_string(&entry.message).expect("a message is made of JSON types");
        let bytes = message.len() as u64;
        let (id, queue, task) = (entry.id.clone(), entry.queue.clone(), entry.task.clone());
        {
            // Counted first: whoever looks meanwhile must not overtake it.
            let mut waiting = self.waiting();
            if waiting.bytes + bytes > self.limit {
                return Ok(Spooled::Full);
            }
            waiting.add(queue.as_str(), 1, bytes);
        }
        let insert = "INSERT INTO spooled (entry, queue, task, message) VALUES (?1, ?2, ?3, ?4)";
        let change = move |connection: &rusqlite::Connection| {
            let values = params![id.as_str(), queue.as_str(), task.as_str(), message];
            connection.prepare_cached(insert)?.execute(values)
        };
        let written = self.store.change(change).await;
        match written {
            Ok(_) => self.filled.notify_one(),
            Err(_) => self.waiting().remove(entry.queue.as_str(), 1, bytes),
        }
        written.map(|_| Spooled::Kept)
    }

    /// Puts what waits into the queues, each in its order, until it is told to stop.
    pub(crate) async fn forward(
        &self,
        queues: &Queues,
        stop: &CancellationToken,
        watcher: &impl Watcher,
    ) {
        let (mut under_way, mut busy) = (FuturesUnordered::new(), BTreeSet::new());
        loop {
            let waiting: Vec<String> = self.waiting().entries.keys().cloned().collect();
            for queue in waiting {
                if busy.insert(queue.clone()) {
                    under_way.push(self.forward_to(queue, queues, stop, watcher));
                }
            }
            tokio::select! {
                () = self.filled.notified() => (),
                Some(queue) = under_way.next() => drop(busy.remove(&queue)),
                // What was published and is not removed is published again, under the same id.
                () = stop.cancelled() => return,
            }
        }
    }

    /// Puts what waits for one queue into it, until nothing is left. Returns the queue.
    async fn forward_to(
        &self,
        queue: String,
        queues: &Queues,
        stop: &CancellationToken,
        watcher: &impl Watcher,
    ) -> String {
        let mut backoff = Backoff::default();
        while self.waiting().entries.contains_key(&queue) {
            let failure = match self.forward_batch(&queue, queues, watcher).await {
                // It is counted, and not in the file yet.
                Ok((0, None)) => {
                    tokio::time::sleep(SOON).await;
                    continue;
                }
                Ok((count, failure)) => {
                    if count > 0 {
                        watcher.taken(count);
                        backoff.reset();
                    }
                    failure.map(anyhow::Error::new)
                }
                Err(error) => Some(error.into()),
            };
            if let Some(error) = failure {
                watcher.failed(&format!("{error:#}"));
                backoff.pause(stop).await;
            }
        }
        queue
    }

    /// Puts the first entries of a queue into it. Returns how many it took, and why not all.
    async fn forward_batch(
        &self,
        queue: &str,
        queues: &Queues,
        watcher: &impl Watcher,
    ) -> Result<(u64, Option<QueueError>), StoreError> {
        let lines = self.first(queue).await?;
        let (mut last, mut bytes, mut failure) = (None, 0, None);
        for line in &lines {
            if let Some(entry) = &line.entry
                && let Err(error) = queues.publish(entry).await
                && !(error.is_final() && watcher.refused(entry, &error).await)
            {
                failure = Some(error);
                break;
            }
            last = Some(line.number);
            bytes += line.bytes;
        }
        let Some(last) = last else { return Ok((0, failure)) };
        let remove = "DELETE FROM spooled WHERE queue = ?1 AND number <= ?2";
        let of = queue.to_owned();
        let change = move |file: &rusqlite::Connection| file.execute(remove, params![of, last]);
        let count = self.store.change(change).await? as u64;
        self.waiting().remove(queue, count, bytes);
        Ok((count, failure))
    }

    async fn first(&self, queue: &str) -> Result<Vec<Line>, StoreError> {
        let sql = "SELECT number, entry, queue, task, message FROM spooled
            WHERE queue = ?1 ORDER BY number LIMIT ?2";
        let queue = queue.to_owned();
        self.store
            .read(move |connection| {
                let mut statement = connection.prepare(sql)?;
                statement.query_map(params![queue, BATCH], line)?.collect::<Result<_, _>>()
            })
            .await
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn add(&mut self, queue: &str, entries: u64, bytes: u64) {
        self.bytes += bytes;
        *self.entries.entry(queue.to_owned()).or_default() += entries;
    }

    fn remove(&mut self, queue: &str, entries: u64, bytes: u64) {
        // Neither may go below nought: it would be full for ever.
        self.bytes = self.bytes.saturating_sub(bytes);
        let Some(count) = self.entries.get_mut(queue) else { return };
        *count = count.saturating_sub(entries);
        if *count == 0 {
            self.entries.remove(queue);
        }
    }
}

fn line(row: &Row<'_>) -> rusqlite::Result<Line> {
    let text = |column: &str| row.get::<_, String>(column);
    let (id, queue, task, message) =
        (text("entry")?, text("queue")?, text("task")?, text("message")?);
    let bytes = message.len() as u64;
    let entry = || {
        Some(Entry {
            id: EntryId::new(id.as_str()),
            queue: queue.as_str().try_into().ok()?,
            task: task.as_str().try_into().ok()?,
            message: serde_json::from_str(&message).ok()?,
        })
    };
    let (number, entry) = (row.get("number")?, entry());
    if entry.is_none() {
        tracing::error!("entry {id} of the spool cannot be read and is left out");
    }
    Ok(Line { number, bytes, entry })
}
