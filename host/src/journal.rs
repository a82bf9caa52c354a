//! The journal stores the runs of this host and their effects, in one SQLite file.
//!
//! The effects of a run are the state changes of its task, and the messages that the run emitted. A
//! successful run is recorded in one transaction with all its effects. The emitted messages are
//! stored in the outbox, a table of the journal, until they are published.
//!
//! A run is recorded before its delivery is settled. If the daemon crashes in between, the entry is
//! redelivered, and the journal recognizes it. Workers ask the journal before each run, and record the run after it.
//! Only this module and its children contain SQL for runs.

mod crash_counts;
mod effects;
mod record;
mod retention;
mod rows;

use std::path::Path;
use std::sync::Arc;

use loopabull_model::{EntryId, Message, Outcome, Run, RunId, TaskName};
use loopabull_store::{Schema, Store, StoreError};
use loopabull_wasm::ReadState;
use rusqlite::{Connection, OptionalExtension, params};

pub use record::{CrashCounts, Crashed, Ended, Filter, InterruptedRun, Record};
pub use retention::Retention;
use rows::read;

const SCHEMA: Schema = Schema { oldest: 5, steps: &[TABLES, LIST_INDEXES, ROWS_BY_TIME] };

/// Runs are stored in the order of their time, so that new ones are next to each other and a message of a kilobyte takes no
/// page of its own. The crash of the last daemon of the earlier version is counted for its entries.
const ROWS_BY_TIME: &str = "
    ALTER TABLE runs RENAME TO earlier_runs;
    CREATE TABLE runs (
        id TEXT NOT NULL UNIQUE,
        entry TEXT NOT NULL,
        message_id TEXT NOT NULL,
        topic TEXT NOT NULL,
        task TEXT NOT NULL,
        kind TEXT NOT NULL,             -- JSON
        attempt INTEGER NOT NULL,
        worker INTEGER NOT NULL,
        started_at_ms INTEGER NOT NULL,
        duration_us INTEGER NOT NULL,
        outcome_name TEXT NOT NULL,
        outcome TEXT NOT NULL,          -- JSON, as the seven below
        output TEXT NOT NULL,
        notes TEXT NOT NULL,
        grants TEXT NOT NULL,
        usage TEXT NOT NULL,
        emitted TEXT NOT NULL,
        playbook TEXT NOT NULL,
        message TEXT                    -- NULL if it is too large to keep
    ) STRICT;
    INSERT INTO runs SELECT * FROM earlier_runs ORDER BY started_at_ms;
    DROP TABLE earlier_runs;
    CREATE INDEX runs_of_entry ON runs (entry, outcome_name);
    CREATE INDEX runs_of_message ON runs (message_id);
    CREATE INDEX runs_by_time ON runs (started_at_ms);
    CREATE INDEX runs_of_task ON runs (task, started_at_ms);
    CREATE INDEX runs_of_outcome ON runs (outcome_name, started_at_ms);
    CREATE TABLE crashed_entries (  -- how many daemons died while they ran the entry
        entry TEXT PRIMARY KEY,
        crashes INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE crashed_tasks (    -- how many daemons in a row died while they ran the task
        task TEXT PRIMARY KEY,
        crashes INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO crashed_entries SELECT entry, crashes + running FROM starts WHERE crashes + running > 0;
    INSERT INTO crashed_tasks SELECT * FROM crashes;
    INSERT INTO crashed_tasks SELECT DISTINCT task, 1 FROM starts WHERE running = 1
        ON CONFLICT (task) DO UPDATE SET crashes = crashes + 1;
    DROP TABLE starts;
    DROP TABLE crashes;";

/// Without these indexes, a list of the runs of a task or with an outcome reads and sorts all runs.
const LIST_INDEXES: &str = "
    CREATE INDEX runs_of_task ON runs (task, started_at_ms);
    CREATE INDEX runs_of_outcome ON runs (outcome_name, started_at_ms);";

const TABLES: &str = "
    CREATE TABLE runs (
        id TEXT PRIMARY KEY,
        entry TEXT NOT NULL,
        message_id TEXT NOT NULL,
        topic TEXT NOT NULL,
        task TEXT NOT NULL,
        kind TEXT NOT NULL,             -- JSON, as the three below
        attempt INTEGER NOT NULL,
        worker INTEGER NOT NULL,
        started_at_ms INTEGER NOT NULL,
        duration_us INTEGER NOT NULL,
        outcome_name TEXT NOT NULL,
        outcome TEXT NOT NULL,
        output TEXT NOT NULL,
        notes TEXT NOT NULL,
        grants TEXT NOT NULL,           -- JSON, as the three below
        usage TEXT NOT NULL,
        emitted TEXT NOT NULL,
        playbook TEXT NOT NULL,
        message TEXT                    -- JSON; NULL if it is too large to keep
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE outbox (     -- unsent messages of successful runs
        entry TEXT NOT NULL,
        place INTEGER NOT NULL,
        message TEXT NOT NULL,              -- JSON
        queued INTEGER NOT NULL,            -- 1: in the queues, not yet on the bus
        PRIMARY KEY (entry, place)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE state (      -- the state of tasks
        task TEXT NOT NULL,
        key TEXT NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (task, key)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE starts (     -- attempts that began and have no recorded run
        entry TEXT PRIMARY KEY,
        task TEXT NOT NULL,
        running INTEGER NOT NULL,           -- 0: not any more
        crashes INTEGER NOT NULL,          -- how many daemons died while they ran the entry
        waited INTEGER NOT NULL             -- 1: the entry was delayed since the last death
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE crashes (    -- how many daemons in a row died with the task
        task TEXT PRIMARY KEY,
        count INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX runs_of_entry ON runs (entry, outcome_name);
    CREATE INDEX runs_of_message ON runs (message_id);
    CREATE INDEX runs_by_time ON runs (started_at_ms);";

/// The runs of this host and their effects.
#[derive(Debug)]
pub struct Journal {
    store: Store,
}

/// Whether an emitted message is also published on the bus, after it was published to the queues.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AfterQueues {
    /// The message is only published to the queues.
    Done,
    /// The message is also published on the bus.
    Bus,
}

impl Journal {
    /// Opens the journal in a state directory. Creates the file if it is missing.
    pub fn open(state: &Path) -> Result<Self, StoreError> {
        Ok(Self { store: Store::open(&state.join("journal.db"), SCHEMA)? })
    }

    /// Opens the journal in a state directory to read it.
    pub fn open_to_read(state: &Path) -> Result<Self, StoreError> {
        Ok(Self { store: Store::open_to_read(&state.join("journal.db"), SCHEMA)? })
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

    /// Returns the runs that match the filter, newest first.
    pub async fn list(&self, filter: Filter) -> Result<Vec<Run>, StoreError> {
        let query = move |connection: &Connection| {
            connection
                .prepare(&rows::list(&filter))?
                .query_map(
                    params![filter.limit, filter.task, filter.outcome, filter.message],
                    read,
                )?
                .collect()
        };
        self.store.read(query).await
    }

    /// Returns the run with this id.
    pub async fn find(&self, id: RunId) -> Result<Option<Run>, StoreError> {
        let query = move |connection: &Connection| {
            connection.query_row("SELECT * FROM runs WHERE id = ?1", [id.as_str()], read).optional()
        };
        self.store.read(query).await
    }

    /// Deletes some of the runs that need not be kept, and returns their number. Call it until that is 0. `now_ms` is the
    /// time in milliseconds since 1970.
    pub async fn delete_some(
        &self,
        retention: Retention,
        now_ms: i64,
    ) -> Result<usize, StoreError> {
        let delete =
            move |connection: &Connection| retention::delete_some(connection, retention, now_ms);
        self.store.change_unsynced(delete).await
    }

    /// Gives the space of deleted runs back to the file system, if it is most of the file.
    pub async fn shrink(&self) -> Result<(), StoreError> {
        self.store.shrink().await
    }

    /// Returns the number of runs for each outcome.
    pub async fn count(&self) -> Result<Vec<(String, u64)>, StoreError> {
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
