//! The journal stores the runs of this host and their effects, in the file that also has the embedded queue.
//!
//! The effects of a run are the state changes of its task, and the messages that the run emitted. A
//! successful run is recorded in one transaction with all its effects. The emitted messages are
//! stored in the outbox, a table of the journal, until they are published.
//!
//! A run is recorded before its delivery is settled, or in the same transaction if the queue is embedded. If the daemon
//! crashes in between, the entry is redelivered, and the journal recognizes it. Workers ask the journal before each run, and record the run after it.
//! Only this module and its children contain SQL for runs.

mod crash_counts;
mod effects;
mod failures;
mod find;
mod record;
mod retention;
mod rows;
mod search;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use loopabull_model::{EntryId, Message, Outcome, Run, RunId, TaskName};
use loopabull_store::{Store, StoreError};
use loopabull_wasm::ReadState;
use rusqlite::{Connection, OptionalExtension, params};

use crate::tables;

pub use failures::{FailureGroup, Failures};
pub use find::{Found, Place, PlaceError};
pub use record::{AfterQueues, CrashCounts, Crashed, Ended, InterruptedRun, QueueChanges, Record};
pub use retention::Retention;
pub(crate) use rows::has_runs;
use rows::read;
pub use search::{QUALIFIERS, Search, SearchError, term};

/// The runs of this host and their effects.
#[derive(Debug)]
pub struct Journal {
    store: Arc<Store>,
}

impl Journal {
    /// Opens the journal in a state directory. Creates the file if it is missing.
    pub fn open(state: &Path) -> Result<Self, StoreError> {
        Ok(Self { store: Arc::new(Store::open(&tables::path(state), tables::SCHEMA)?) })
    }

    /// Opens the journal in a state directory to read it.
    pub fn open_to_read(state: &Path) -> Result<Self, StoreError> {
        Ok(Self { store: Arc::new(Store::open_to_read(&tables::path(state), tables::SCHEMA)?) })
    }

    /// Returns the file, which also has the embedded queue.
    pub(crate) fn file(&self) -> Arc<Store> {
        Arc::clone(&self.store)
    }

    /// Records runs with their effects, in this order. Returns the changed outcome of each run, if it has one, once all runs
    /// are on disk.
    ///
    /// If another run changed the state that a run had read, or if the state would exceed its
    /// limit, no effects of the run are recorded. The changed outcome then names the reason.
    pub async fn record(
        &self,
        records: Arc<Vec<Record>>,
    ) -> Result<Vec<Option<Outcome>>, StoreError> {
        let record = move |connection: &Connection| {
            records.iter().map(|record| effects::record(connection, record)).collect()
        };
        self.store.change(record).await
    }

    /// Returns the run of an entry that counts as an attempt: the successful one, or else the last one.
    pub fn ended(&self, entry: &EntryId) -> Result<Option<Ended>, StoreError> {
        self.store.look_up(|connection| rows::ended(connection, entry))
    }

    /// Returns the emitted messages of an entry that are not in the queues yet, in order.
    pub async fn outbox(&self, entry: &EntryId) -> Result<Vec<Message>, StoreError> {
        let entry = entry.clone();
        self.store.read(move |connection| effects::outbox(connection, &entry)).await
    }

    /// Returns the entries with emitted messages that are not in the queues yet.
    pub async fn unsent(&self) -> Result<Vec<EntryId>, StoreError> {
        self.store.read(effects::unsent).await
    }

    /// Records that the emitted messages of an entry are in the queues. Deletes the messages from
    /// the outbox, or keeps them there until they are published on the bus.
    pub async fn set_queued(&self, entry: &EntryId, then: AfterQueues) -> Result<(), StoreError> {
        let entry = entry.clone();
        let sql = match then {
            AfterQueues::Done => "DELETE FROM outbox WHERE entry = ?1",
            AfterQueues::Bus => "UPDATE outbox SET queued = 1 WHERE entry = ?1",
        };
        let set = move |connection: &Connection| connection.execute(sql, [entry.as_str()]);
        self.store.change(set).await.map(drop)
    }

    /// Returns up to 100 messages that are in the queues and not on the bus yet. Each message comes
    /// with its entry and its place in the outbox.
    pub async fn awaiting_bus(&self) -> Result<Vec<(EntryId, u64, Message)>, StoreError> {
        self.store.read(effects::awaiting_bus).await
    }

    /// Deletes a message from the outbox after it was published on the bus.
    pub async fn forget_published(&self, entry: &EntryId, place: u64) -> Result<(), StoreError> {
        let entry = entry.clone();
        let forget = move |connection: &Connection| {
            let sql = "DELETE FROM outbox WHERE entry = ?1 AND place = ?2";
            connection.execute(sql, params![entry.as_str(), place])
        };
        self.store.change(forget).await.map(drop)
    }

    /// Returns a function that reads a key from the state of a task.
    pub fn state_of(self: &Arc<Self>, task: &TaskName) -> ReadState {
        let (journal, task) = (Arc::clone(self), task.clone());
        Arc::new(move |key| {
            let (journal, task) = (Arc::clone(&journal), task.clone());
            Box::pin(async move {
                let query = move |connection: &Connection| effects::state(connection, &task, &key);
                journal.store.read(query).await.map_err(loopabull_model::chain)
            })
        })
    }

    /// Returns the message of a run, if it is stored. Messages above a size limit are not stored.
    pub async fn message(&self, id: RunId) -> Result<Option<Message>, StoreError> {
        let query = move |connection: &Connection| {
            let sql = "SELECT message FROM runs WHERE id = ?1 AND message IS NOT NULL";
            connection
                .query_row(sql, [id.as_str()], |row| rows::from_json(row, "message"))
                .optional()
        };
        self.store.read(query).await
    }

    /// Counts the crash of the last daemon, for the entries that were running. Returns their tasks and all counts.
    pub async fn count_crash(
        &self,
        running: Vec<InterruptedRun>,
    ) -> Result<(Vec<Crashed>, CrashCounts), StoreError> {
        self.store.change(move |connection| crash_counts::count(connection, &running)).await
    }

    /// Returns up to `limit` runs that a search finds before a place, newest first. Looks for them for about `time`.
    pub async fn search(
        &self,
        search: Search,
        before: Option<Place>,
        limit: usize,
        time: Duration,
    ) -> Result<Found, StoreError> {
        let query =
            move |connection: &Connection| find::find(connection, &search, before, limit, time);
        self.store.read(query).await
    }

    /// Groups the failed runs that started since a time, in milliseconds since 1970. Looks through them for about `time`.
    pub async fn failures(&self, since_ms: i64, time: Duration) -> Result<Failures, StoreError> {
        let query = move |connection: &Connection| failures::failures(connection, since_ms, time);
        self.store.read(query).await
    }

    /// Returns the run with this id.
    pub async fn find(&self, id: RunId) -> Result<Option<Run>, StoreError> {
        let query = move |connection: &Connection| {
            connection.query_row("SELECT * FROM runs WHERE id = ?1", [id.as_str()], read).optional()
        };
        self.store.read(query).await
    }

    /// Returns the runs that repeat a run, oldest first, up to `limit`.
    pub async fn repetitions(&self, of: &RunId, limit: u32) -> Result<Vec<Run>, StoreError> {
        let start = EntryId::prefix_of_repetitions(of);
        // The character after `-`, with which `start` ends.
        let end = start.trim_end_matches('-').to_owned() + ".";
        let query = move |connection: &Connection| {
            let sql = "SELECT * FROM runs WHERE entry >= ?1 AND entry < ?2 ORDER BY started_at_ms LIMIT ?3";
            connection.prepare(sql)?.query_map(params![start, end, limit], read)?.collect()
        };
        self.store.read(query).await
    }

    /// Returns about how many bytes of the file are the embedded queue, or 0 if the file is not larger than `max_size`.
    pub async fn bytes_of_queue(&self, max_size: u64) -> Result<u64, StoreError> {
        self.store.read(move |connection| retention::bytes_of_queue(connection, max_size)).await
    }

    /// Deletes some of the runs that need not be kept, and returns their number. Call it until that is 0. `queue` is the
    /// size of the embedded queue, and `now_ms` the time in milliseconds since 1970.
    pub async fn delete_some(
        &self,
        retention: Retention,
        queue: u64,
        now_ms: i64,
    ) -> Result<usize, StoreError> {
        let delete = move |connection: &Connection| {
            retention::delete_some(connection, retention, queue, now_ms)
        };
        self.store.change_unsynced(delete).await
    }

    /// Gives the space of deleted runs back to the file system, if it is most of the file.
    pub async fn shrink(&self) -> Result<(), StoreError> {
        self.store.shrink().await
    }

    /// Returns the number of runs for each outcome.
    pub async fn count(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        let query = |connection: &Connection| {
            connection
                .prepare("SELECT outcome_name, count(*) FROM runs GROUP BY 1 ORDER BY 1")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        };
        self.store.read(query).await
    }
}

#[cfg(test)]
mod tests;
