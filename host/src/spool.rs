//! The spool: what a bus will not send again waits here while the work queue cannot take it.
//!
//! A file in the state directory, bounded in bytes, first in and first out. Owns its order and its
//! limit; what becomes of an entry that does not fit is the caller's. Before it: ingest; after it:
//! [`Spool::forward`], which puts everything into the queue as soon as that takes it.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use loopabull_model::{Entry, EntryId};
use loopabull_queue::{Backoff, Queues};
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
    ) STRICT;";
/// How many entries are taken out of the file at a time.
const BATCH: usize = 64;

/// Entries on their way to the work queue.
#[derive(Debug)]
pub struct Spool {
    store: Store,
    limit: u64,
    bytes: AtomicU64,
    entries: AtomicU64,
    filled: Notify,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Spooled {
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
    pub async fn open(path: &Path, limit: u64) -> Result<Self, StoreError> {
        let store = Store::open(path, SCHEMA, VERSION)?;
        let sql = "SELECT coalesce(sum(length(CAST(message AS BLOB))), 0), count(*) FROM spooled";
        let (bytes, entries): (u64, u64) = store
            .read(move |connection| {
                connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
            })
            .await?;
        let (bytes, entries) = (bytes.into(), entries.into());
        Ok(Self { store, limit, bytes, entries, filled: Notify::new() })
    }

    /// Returns how many entries and bytes wait.
    pub fn depth(&self) -> (u64, u64) {
        (self.entries.load(Ordering::SeqCst), self.bytes.load(Ordering::SeqCst))
    }

    /// Tells whether nothing waits, so that another entry may overtake nothing.
    pub fn is_empty(&self) -> bool {
        self.depth().0 == 0
    }

    /// Puts an entry at the end. Returns when it is on disk.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub async fn push(&self, entry: &Entry) -> Result<Spooled, StoreError> {
        let message =
            serde_json::to_string(&entry.message).expect("a message is made of JSON types");
        let bytes = message.len() as u64;
        if self.bytes.load(Ordering::SeqCst) + bytes > self.limit {
            return Ok(Spooled::Full);
        }
        let (id, queue, task) = (entry.id.clone(), entry.queue.clone(), entry.task.clone());
        let insert = "INSERT INTO spooled (entry, queue, task, message) VALUES (?1, ?2, ?3, ?4)";
        let change = move |connection: &rusqlite::Connection| {
            let values = params![id.as_str(), queue.as_str(), task.as_str(), message];
            connection.prepare_cached(insert)?.execute(values)
        };
        // Counted first: whoever looks meanwhile must not overtake it.
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
        self.entries.fetch_add(1, Ordering::SeqCst);
        let written = self.store.change(change).await;
        match written {
            Ok(_) => self.filled.notify_one(),
            Err(_) => self.uncount(1, bytes),
        }
        written.map(|_| Spooled::Kept)
    }

    /// Puts what waits into the queues, in its order, until it is told to stop. `tell` hears how many
    /// were taken at a time, none if nothing is left, or what went wrong.
    pub async fn forward(
        &self,
        queues: &Queues,
        stop: &CancellationToken,
        tell: impl Fn(Result<usize, String>),
    ) {
        let mut backoff = Backoff::default();
        while !stop.is_cancelled() {
            let forwarded = tokio::select! {
                // What was published and is not removed is published again, under the same id.
                forwarded = self.forward_batch(queues) => forwarded,
                () = stop.cancelled() => return,
            };
            match forwarded {
                Ok(0) => {
                    tell(Ok(0));
                    tokio::select! {
                        () = self.filled.notified() => (),
                        () = stop.cancelled() => return,
                    }
                }
                Ok(count) => {
                    tell(Ok(count));
                    backoff.reset();
                }
                Err(error) => {
                    tell(Err(format!("{error:#}")));
                    backoff.pause(stop).await;
                }
            }
        }
    }

    async fn forward_batch(&self, queues: &Queues) -> anyhow::Result<usize> {
        let lines = self.first().await?;
        let (mut last, mut bytes, mut failure) = (None, 0, None);
        for line in &lines {
            if let Some(entry) = &line.entry
                && let Err(error) = queues.publish(entry).await
            {
                failure = Some(error);
                break;
            }
            last = Some(line.number);
            bytes += line.bytes;
        }
        if let Some(last) = last {
            let remove = "DELETE FROM spooled WHERE number <= ?1";
            let removed = self.store.change(move |file| file.execute(remove, [last])).await?;
            self.uncount(removed as u64, bytes);
        }
        match failure {
            Some(error) => Err(error.into()),
            None => Ok(lines.len()),
        }
    }

    async fn first(&self) -> Result<Vec<Line>, StoreError> {
        let sql =
            "SELECT number, entry, queue, task, message FROM spooled ORDER BY number LIMIT ?1";
        self.store
            .read(move |connection| {
                connection.prepare(sql)?.query_map([BATCH], line)?.collect::<Result<_, _>>()
            })
            .await
    }

    fn uncount(&self, entries: u64, bytes: u64) {
        // Neither may go below nought: it would be full for ever.
        for (counter, less) in [(&self.entries, entries), (&self.bytes, bytes)] {
            let new = |count: u64| Some(count.saturating_sub(less));
            counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, new).ok();
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
