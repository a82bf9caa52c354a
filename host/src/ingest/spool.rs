//! The spool is a file in which entries wait while their queue is unavailable.
//!
//! The spool contains only entries of messages that their source does not send again. Entries for
//! the same queue leave the spool in the order in which they came. The total size of the messages
//! in the spool is limited. The publisher adds the entries, and later publishes and removes them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use loopabull_model::{Entry, EntryId};
use loopabull_store::{Schema, Store, StoreError};
use parking_lot::Mutex;
use rusqlite::{Row, params};
use tokio::sync::Notify;

const SCHEMA: Schema = Schema { oldest: 1, steps: &[TABLES] };

const TABLES: &str = "
    CREATE TABLE spooled (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        entry TEXT NOT NULL,
        queue TEXT NOT NULL,
        task TEXT NOT NULL,
        message TEXT NOT NULL
    ) STRICT;
    CREATE INDEX by_queue ON spooled (queue, number);";
/// Maximum number of entries that are read from the file at once.
const BATCH: usize = 256;
/// Size of the messages from which no further entry is read at once, in bytes.
const BATCH_BYTES: u64 = 4 << 20;

/// The entries that wait for their queues.
#[derive(Debug)]
pub(super) struct Spool {
    store: Store,
    max_bytes: u64,
    waiting: Mutex<Waiting>,
    filled: Notify,
}

/// Number and size of the waiting entries, including entries that are being written.
#[derive(Debug, Default)]
struct Waiting {
    bytes: u64,
    /// Number of waiting entries for each queue. The key is the text in the file, which may not be
    /// a valid queue name.
    entries: BTreeMap<String, u64>,
}

/// An entry as it is stored in the file.
#[derive(Debug)]
pub(super) struct Line {
    /// Id of the entry.
    pub id: String,
    /// Parsed entry. None if the entry cannot be parsed, for example because another version of
    /// this program wrote it.
    pub entry: Option<Entry>,
    number: i64,
    bytes: u64,
}

impl Spool {
    /// Opens the file. `max_bytes` limits the total size of the messages in it.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened or read.
    pub(super) async fn open(path: &Path, max_bytes: u64) -> Result<Self, StoreError> {
        let store = Store::open(path, SCHEMA)?;
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
        Ok(Self { store, max_bytes, waiting: Mutex::new(waiting), filled: Notify::new() })
    }

    /// Returns the number of waiting entries, and the size of their messages in bytes.
    pub(super) fn depth(&self) -> (u64, u64) {
        let waiting = self.waiting.lock();
        (waiting.entries.values().sum(), waiting.bytes)
    }

    /// Returns whether an entry waits for a queue.
    pub(super) fn contains(&self, queue: &str) -> bool {
        self.waiting.lock().entries.contains_key(queue)
    }

    /// Returns the queues for which entries wait. A new entry must not overtake one that waits.
    pub(super) fn queues(&self) -> Vec<String> {
        self.waiting.lock().entries.keys().cloned().collect()
    }

    /// Waits until an entry is added. Returns at once if an entry was added since the last call.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Appends the entries that fit. Returns for each whether it does, once they are on disk.
    ///
    /// # Errors
    ///
    /// If the file cannot be written. Then it contains none of them.
    pub(super) async fn push(&self, entries: &[&Entry]) -> Result<Vec<bool>, StoreError> {
        let (mut rows, mut fits) = (Vec::with_capacity(entries.len()), Vec::new());
        {
            // The entries are counted before they are written, so that a later entry cannot overtake them.
            let mut waiting = self.waiting.lock();
            for entry in entries {
                let message = serde_json::to_string(&entry.message)
                    .expect("a message contains only JSON types");
                fits.push(waiting.bytes + message.len() as u64 <= self.max_bytes);
                if !fits[fits.len() - 1] {
                    continue;
                }
                waiting.add(entry.queue.as_str(), 1, message.len() as u64);
                let (id, queue, task) = (entry.id.clone(), entry.queue.clone(), entry.task.clone());
                rows.push((id, queue, task, message));
            }
        }
        let insert = "INSERT INTO spooled (entry, queue, task, message) VALUES (?1, ?2, ?3, ?4)";
        let rows = Arc::new(rows);
        let written = Arc::clone(&rows);
        let change = move |connection: &rusqlite::Connection| {
            let mut insert = connection.prepare_cached(insert)?;
            for (id, queue, task, message) in written.iter() {
                insert.execute(params![id.as_str(), queue.as_str(), task.as_str(), message])?;
            }
            Ok(())
        };
        let written = self.store.change(change).await;
        match written {
            Ok(()) => self.filled.notify_one(),
            Err(_) => {
                let mut waiting = self.waiting.lock();
                for (_, queue, _, message) in rows.iter() {
                    waiting.remove(queue.as_str(), 1, message.len() as u64);
                }
            }
        }
        written.map(|()| fits)
    }

    /// Returns the first entries of a queue, at most 256 or some megabytes.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub(super) async fn first(&self, queue: &str) -> Result<Vec<Line>, StoreError> {
        let sql = "SELECT number, entry, queue, task, message FROM spooled
            WHERE queue = ?1 ORDER BY number LIMIT ?2";
        let queue = queue.to_owned();
        self.store
            .read(move |connection| {
                let mut statement = connection.prepare(sql)?;
                let (mut lines, mut bytes) = (Vec::new(), 0);
                for found in statement.query_map(params![queue, BATCH], line)? {
                    let found = found?;
                    bytes += found.bytes;
                    lines.push(found);
                    if bytes > BATCH_BYTES {
                        break;
                    }
                }
                Ok(lines)
            })
            .await
    }

    /// Removes entries of a queue. Returns the number of removed entries, once the change is on disk.
    ///
    /// # Errors
    ///
    /// If the file cannot be changed.
    pub(super) async fn remove(&self, queue: &str, lines: &[&Line]) -> Result<u64, StoreError> {
        if lines.is_empty() {
            return Ok(0);
        }
        let bytes = lines.iter().map(|line| line.bytes).sum();
        let numbers: Vec<i64> = lines.iter().map(|line| line.number).collect();
        let change = move |file: &rusqlite::Connection| {
            let mut delete = file.prepare_cached("DELETE FROM spooled WHERE number = ?1")?;
            numbers.iter().map(|number| delete.execute([number])).sum::<rusqlite::Result<usize>>()
        };
        let count = self.store.change(change).await? as u64;
        self.waiting.lock().remove(queue, count, bytes);
        Ok(count)
    }
}

impl Waiting {
    fn add(&mut self, queue: &str, entries: u64, bytes: u64) {
        self.bytes += bytes;
        *self.entries.entry(queue.to_owned()).or_default() += entries;
    }

    fn remove(&mut self, queue: &str, entries: u64, bytes: u64) {
        // The counts must not wrap below zero, because the spool would then be full forever.
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
    Ok(Line { id, entry, number, bytes })
}
