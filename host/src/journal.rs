//! The journal: the runs of this host and what they leave behind, in one SQLite file.
//!
//! The only part that knows SQL for runs. A run is recorded before its delivery is settled, so that
//! a crash in between means a second attempt that the journal recognises, never a run nobody saw.
//! With a run that succeeded its effects are kept, all or none: what its task remembers, and in the
//! outbox the messages that are to be sent.

mod effects;
mod rows;

use std::path::Path;
use std::sync::Arc;

use loopabull_model::{EntryId, Message, Outcome, Run, RunId, StateChanges, TaskName};
use loopabull_store::{Store, StoreError};
use loopabull_wasm::ReadState;
use rusqlite::{Connection, OptionalExtension, params};

use rows::{checked, read};

/// Counts the changes to the schema that an older file does not survive.
const VERSION: i32 = 4;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS runs (
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
        message TEXT                    -- JSON; none if it is too large to be kept
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS outbox (     -- messages of runs that succeeded, on their way
        entry TEXT NOT NULL,
        place INTEGER NOT NULL,
        message TEXT NOT NULL,              -- JSON
        queued INTEGER NOT NULL,            -- 1: only the bus does not have it
        PRIMARY KEY (entry, place)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS state (      -- what tasks remember
        task TEXT NOT NULL,
        key TEXT NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (task, key)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS starts (     -- attempts that were begun and not recorded
        entry TEXT PRIMARY KEY,
        task TEXT NOT NULL,
        running INTEGER NOT NULL,           -- 0: the daemon that began it is gone
        cut_offs INTEGER NOT NULL,          -- how often one was gone
        waited INTEGER NOT NULL             -- 1: it has had its pause since
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS crashes (    -- how often in a row a daemon died with this task
        task TEXT PRIMARY KEY,
        count INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS runs_of_entry ON runs (entry, outcome_name);
    CREATE INDEX IF NOT EXISTS runs_of_message ON runs (message_id);
    CREATE INDEX IF NOT EXISTS runs_by_time ON runs (started_at_ms);";

/// The runs of this host.
#[derive(Debug)]
pub struct Journal {
    store: Store,
}

/// What the journal makes of an attempt that is to begin.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Begun {
    /// It may start. So often its daemon has died while it was run.
    Run { cut_offs: u32 },
    /// It has to wait: it was running when more than one daemon died, and is to be run apart from
    /// what was running beside it.
    Wait { cut_offs: u32 },
    /// The entry has had its successful run, and only the queue does not know.
    Succeeded,
    /// This attempt or a later one has had its run, and only the queue does not know.
    Ended { outcome: Outcome, attempt: u32, output: String },
}

/// A task that was running when earlier daemons died.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Crashed {
    pub task: TaskName,
    /// How many daemons in a row, with no success of it in between.
    pub count: u32,
}

/// A run with all that is kept with it.
#[derive(Clone, Debug)]
pub struct Record {
    pub run: Run,
    pub message: Message,
    /// The messages that are sent if it succeeded, in the order of `run.emitted`.
    pub sends: Vec<Message>,
    pub state: StateChanges,
}

/// Where a message goes after the queues.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AfterQueues {
    /// Nowhere.
    Done,
    /// To the bus.
    Bus,
}

/// Which runs are wanted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub task: Option<String>,
    pub outcome: Option<String>,
    pub message: Option<String>,
    /// The newest so many.
    pub limit: u32,
}

impl Journal {
    /// Opens the journal of a state directory; makes it if there is none.
    pub fn open(state: &Path) -> Result<Self, StoreError> {
        Ok(Self { store: Store::open(&state.join("journal.db"), SCHEMA, VERSION)? })
    }

    /// Keeps a run with its effects, and returns it as it was kept, once that is on disk.
    ///
    /// If another run has changed what this one had read of its task's state, or the task would
    /// remember too much, nothing of its effects is kept and its outcome says so.
    pub async fn record(&self, record: Record) -> Result<Run, StoreError> {
        self.store.change(move |connection| effects::record(connection, record)).await
    }

    /// Notes that an attempt begins, or says why it must not. Returns once that is on disk.
    pub async fn begin(
        &self,
        entry: &EntryId,
        task: &TaskName,
        attempt: u32,
    ) -> Result<Begun, StoreError> {
        let (entry, task) = (entry.clone(), task.clone());
        self.store.change(move |connection| rows::begin(connection, &entry, &task, attempt)).await
    }

    /// Returns the messages that are still to be sent because of an entry, in their order.
    pub async fn outbox(&self, entry: &EntryId) -> Result<Vec<Message>, StoreError> {
        let entry = entry.clone();
        self.store.read(move |connection| effects::outbox(connection, &entry)).await
    }

    /// Returns the entries because of which messages are still to be sent.
    pub async fn unsent(&self) -> Result<Vec<EntryId>, StoreError> {
        self.store.read(effects::unsent).await
    }

    /// Forgets the messages of an entry, which are in the queues; or keeps them for the bus alone.
    pub async fn set_queued(&self, entry: &EntryId, then: AfterQueues) -> Result<(), StoreError> {
        let entry = entry.clone();
        let sql = match then {
            AfterQueues::Done => "DELETE FROM outbox WHERE entry = ?1",
            AfterQueues::Bus => "UPDATE outbox SET queued = 1 WHERE entry = ?1",
        };
        let set = move |connection: &Connection| connection.execute(sql, [entry.as_str()]);
        self.store.change(set).await.map(drop)
    }

    /// Returns some of the messages that only the bus does not have, each with its entry and place.
    pub async fn for_bus(&self) -> Result<Vec<(EntryId, u64, Message)>, StoreError> {
        self.store.read(effects::for_bus).await
    }

    /// Forgets a message, which the bus has.
    pub async fn forget_published(&self, entry: &EntryId, place: u64) -> Result<(), StoreError> {
        let entry = entry.clone();
        let forget = move |connection: &Connection| {
            let sql = "DELETE FROM outbox WHERE entry = ?1 AND place = ?2";
            connection.execute(sql, params![entry.as_str(), place])
        };
        self.store.change(forget).await.map(drop)
    }

    /// Returns how to read what a task remembers.
    pub fn state_of(self: &Arc<Self>, task: &TaskName) -> ReadState {
        let (journal, task) = (Arc::clone(self), task.clone());
        Arc::new(move |key| {
            let (journal, task) = (Arc::clone(&journal), task.clone());
            Box::pin(async move {
                let query = move |connection: &Connection| effects::state(connection, &task, &key);
                journal.store.read(query).await.map_err(crate::error::chain)
            })
        })
    }

    /// Returns the message of a run, if it was kept.
    pub async fn message(&self, id: RunId) -> Result<Option<Message>, StoreError> {
        let query = move |connection: &Connection| {
            let sql = "SELECT message FROM runs WHERE id = ?1 AND message IS NOT NULL";
            connection
                .query_row(sql, [id.as_str()], |row| rows::from_json(row, "message"))
                .optional()
        };
        self.store.read(query).await
    }

    /// Returns the tasks that were running when the last daemon died. Each is told of once.
    pub async fn take_crashed(&self) -> Result<Vec<Crashed>, StoreError> {
        let take = |connection: &Connection| {
            connection.execute(
                "INSERT INTO crashes SELECT DISTINCT task, 1 FROM starts WHERE running = 1
                 ON CONFLICT (task) DO UPDATE SET count = count + 1",
                [],
            )?;
            let crashed = connection
                .prepare(
                    "SELECT task, count FROM crashes
                     WHERE task IN (SELECT task FROM starts WHERE running = 1) ORDER BY task",
                )?
                .query_map([], |row| {
                    Ok(Crashed { task: checked(row, "task")?, count: row.get(1)? })
                })?
                .collect();
            connection.execute(
                "UPDATE starts SET running = 0, waited = 0, cut_offs = cut_offs + 1
                 WHERE running = 1",
                [],
            )?;
            crashed
        };
        self.store.change(take).await
    }

    /// Returns the newest runs that match, the newest first.
    pub async fn list(&self, filter: Filter) -> Result<Vec<Run>, StoreError> {
        let query = move |connection: &Connection| {
            connection
                .prepare(
                    "SELECT * FROM runs
                     WHERE (?1 IS NULL OR task = ?1) AND (?2 IS NULL OR outcome_name = ?2)
                       AND (?3 IS NULL OR message_id = ?3)
                     ORDER BY started_at_ms DESC, id LIMIT ?4",
                )?
                .query_map(
                    params![filter.task, filter.outcome, filter.message, filter.limit],
                    read,
                )?
                .collect()
        };
        self.store.read(query).await
    }

    /// Returns one run.
    pub async fn find(&self, id: RunId) -> Result<Option<Run>, StoreError> {
        let query = move |connection: &Connection| {
            connection.query_row("SELECT * FROM runs WHERE id = ?1", [id.as_str()], read).optional()
        };
        self.store.read(query).await
    }

    /// Returns how many runs there are of each outcome.
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
