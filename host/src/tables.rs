//! The tables of the state file `journal.db`, and how they came to be.
//!
//! The journal and the embedded queue share the file, so that a run is recorded and its delivery is settled in one
//! transaction. The SQL that uses the tables is in the module `journal` and in the crate `loopabull-queue`.

use std::path::{Path, PathBuf};

use loopabull_store::Schema;

/// The steps of the file. With RabbitMQ, the table of the queue stays empty.
pub(crate) const SCHEMA: Schema =
    Schema { oldest: 5, steps: &[JOURNAL, LIST_INDEXES, ROWS_BY_TIME, loopabull_queue::TABLES] };

/// Returns the path of the file in a state directory.
pub(crate) fn path(state: &Path) -> PathBuf {
    state.join("journal.db")
}

const JOURNAL: &str = "
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

/// Without these indexes, a list of the runs of a task or with an outcome reads and sorts all runs.
const LIST_INDEXES: &str = "
    CREATE INDEX runs_of_task ON runs (task, started_at_ms);
    CREATE INDEX runs_of_outcome ON runs (outcome_name, started_at_ms);";

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
