//! The journal: the runs of this host, in one SQLite file.
//!
//! The only part that knows SQL for runs. A run is recorded before its delivery is settled, so that
//! a crash in between means a second attempt that the journal recognises, never a run nobody saw.

use std::path::Path;
use std::time::Duration;

use loopabull_model::{EntryId, Outcome, Run, RunId};
use loopabull_store::{Store, StoreError};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

/// Counts the changes to the schema that an older file does not survive.
const VERSION: i32 = 1;

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
        notes TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS runs_of_entry ON runs (entry, outcome_name);
    CREATE INDEX IF NOT EXISTS runs_of_message ON runs (message_id);
    CREATE INDEX IF NOT EXISTS runs_by_time ON runs (started_at_ms);";

/// The runs of this host.
#[derive(Debug)]
pub struct Journal {
    store: Store,
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

    /// Keeps a run. Returns once it is on disk.
    pub async fn record(&self, run: Run) -> Result<(), StoreError> {
        self.store.change(move |connection| insert(connection, &run)).await.map(|_| ())
    }

    /// Tells whether an entry of the queue has had a successful run.
    pub async fn has_succeeded(&self, entry: &EntryId) -> Result<bool, StoreError> {
        let entry = entry.as_str().to_owned();
        let query = move |connection: &Connection| {
            connection.query_row(
                "SELECT EXISTS (SELECT 1 FROM runs WHERE entry = ?1 AND outcome_name = 'success')",
                [entry],
                |row| row.get(0),
            )
        };
        self.store.read(query).await
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

fn insert(connection: &Connection, run: &Run) -> rusqlite::Result<usize> {
    connection
        .prepare_cached("INSERT INTO runs VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14)")?
        .execute(params![
            run.id.as_str(),
            run.entry.as_str(),
            run.message_id.as_str(),
            run.topic.as_str(),
            run.task.as_str(),
            json(&run.kind),
            run.attempt,
            run.worker,
            run.started_at_ms,
            u64::try_from(run.duration.as_micros()).unwrap_or(u64::MAX),
            run.outcome.name(),
            json(&run.outcome),
            json(&run.output),
            json(&run.notes),
        ])
}

fn read(row: &Row<'_>) -> rusqlite::Result<Run> {
    Ok(Run {
        id: RunId::new(row.get::<_, String>("id")?),
        entry: EntryId::new(row.get::<_, String>("entry")?),
        message_id: checked(row, "message_id")?,
        topic: checked(row, "topic")?,
        task: checked(row, "task")?,
        kind: from_json(row, "kind")?,
        attempt: row.get("attempt")?,
        worker: row.get("worker")?,
        started_at_ms: row.get("started_at_ms")?,
        duration: Duration::from_micros(row.get("duration_us")?),
        outcome: from_json::<Outcome>(row, "outcome")?,
        output: from_json(row, "output")?,
        notes: from_json(row, "notes")?,
    })
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("a run is made of JSON types")
}

fn from_json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    serde_json::from_str(&row.get::<_, String>(column)?).map_err(unreadable)
}

fn checked<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<T>
where
    T: TryFrom<String>,
    T::Error: std::error::Error + Send + Sync + 'static,
{
    T::try_from(row.get(column)?).map_err(unreadable)
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error))
}

#[cfg(test)]
mod tests {
    use loopabull_model::{Output, TaskKind};

    use super::*;

    fn run(id: &str, message: &str, outcome: Outcome) -> Run {
        Run {
            id: RunId::new(id),
            entry: EntryId::new(format!("entry of {message}")),
            message_id: message.try_into().unwrap(),
            topic: "a.b".try_into().unwrap(),
            task: "t".try_into().unwrap(),
            kind: TaskKind::Component,
            attempt: 1,
            worker: 2,
            started_at_ms: 3,
            duration: Duration::from_micros(4),
            outcome,
            output: Output { text: "text".into(), dropped: 5 },
            notes: vec![("k".into(), "v".into())],
        }
    }

    #[tokio::test]
    async fn a_run_is_found_as_it_was_recorded() {
        let state = tempfile::tempdir().unwrap();
        let failed = run("r-1", "m-1", Outcome::Retry { reason: "later".into() });
        Journal::open(state.path()).unwrap().record(failed.clone()).await.unwrap();
        let journal = Journal::open(state.path()).unwrap();
        assert_eq!(journal.find(RunId::new("r-1")).await.unwrap(), Some(failed));
        assert_eq!(journal.find(RunId::new("r-2")).await.unwrap(), None);
    }

    #[tokio::test]
    async fn only_a_success_counts_as_one() {
        let state = tempfile::tempdir().unwrap();
        let journal = Journal::open(state.path()).unwrap();
        let entry = EntryId::new("entry of m-1");
        journal.record(run("r-1", "m-1", Outcome::Retry { reason: "x".into() })).await.unwrap();
        assert!(!journal.has_succeeded(&entry).await.unwrap());
        journal.record(run("r-2", "m-1", Outcome::Success)).await.unwrap();
        assert!(journal.has_succeeded(&entry).await.unwrap());
        assert!(!journal.has_succeeded(&EntryId::new("another")).await.unwrap());
    }

    #[tokio::test]
    async fn a_list_is_filtered_and_limited() {
        let state = tempfile::tempdir().unwrap();
        let journal = Journal::open(state.path()).unwrap();
        for number in 0..5 {
            let id = format!("r-{number}");
            journal.record(run(&id, "m-1", Outcome::Success)).await.unwrap();
        }
        let list = |filter| async { journal.list(filter).await.unwrap().len() };
        assert_eq!(list(Filter { limit: 3, ..Filter::default() }).await, 3);
        let retries = Filter { outcome: Some("retry".into()), limit: 9, ..Filter::default() };
        assert_eq!(list(retries).await, 0);
        assert_eq!(journal.count().await.unwrap(), [("success".to_owned(), 5)]);
    }
}
