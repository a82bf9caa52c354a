//! The journal: the runs of this host, in one SQLite file.
//!
//! The only part that knows SQL for runs. A run is recorded before its delivery is settled, so that
//! a crash in between means a second attempt that the journal recognises, never a run nobody saw.

use std::path::Path;
use std::time::Duration;

use loopabull_model::{EntryId, Outcome, Output, RetryPolicy, Run, RunId, TaskName};
use loopabull_store::{Store, StoreError};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

/// Counts the changes to the schema that an older file does not survive.
const VERSION: i32 = 2;

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

    /// Notes that an attempt begins, or says why it must not. Returns once that is on disk.
    pub async fn begin(
        &self,
        entry: &EntryId,
        task: &TaskName,
        attempt: u32,
    ) -> Result<Begun, StoreError> {
        let (entry, task) = (entry.clone(), task.clone());
        self.store.change(move |connection| begin(connection, &entry, &task, attempt)).await
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

fn begin(
    connection: &Connection,
    entry: &EntryId,
    task: &TaskName,
    attempt: u32,
) -> rusqlite::Result<Begun> {
    // A cancelled run is given back uncounted: it is no attempt.
    let ended = connection
        .prepare_cached(
            "SELECT attempt, outcome, output FROM runs WHERE entry = ?1 AND outcome_name <> 'cancelled'
             ORDER BY outcome_name = 'success' DESC, attempt DESC LIMIT 1",
        )?
        .query_row([entry.as_str()], |row| {
            let outcome = from_json::<Outcome>(row, "outcome")?;
            Ok((row.get::<_, u32>("attempt")?, outcome, from_json::<Output>(row, "output")?))
        })
        .optional()?;
    match ended {
        Some((_, outcome, _)) if outcome.is_success() => return Ok(Begun::Succeeded),
        Some((ended, outcome, output)) if ended >= attempt => {
            return Ok(Begun::Ended { outcome, attempt: ended, output: output.text });
        }
        _ => (),
    }
    let earlier = connection
        .prepare_cached("SELECT running, cut_offs, waited FROM starts WHERE entry = ?1")?
        .query_row([entry.as_str()], |row| {
            Ok((row.get::<_, bool>(0)?, row.get::<_, u32>(1)?, row.get::<_, bool>(2)?))
        })
        .optional()?;
    let (cut_offs, waited) = match earlier {
        None => (0, false),
        // This daemon began it and could not record it.
        Some((true, cut_offs, _)) => (cut_offs.saturating_add(1), false),
        Some((false, cut_offs, waited)) => (cut_offs, waited),
    };
    // One that is not run any more does not have to wait for that.
    let waits = (2..RetryPolicy::MOST_CUT_OFFS).contains(&cut_offs) && !waited;
    connection
        .prepare_cached("INSERT OR REPLACE INTO starts VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![entry.as_str(), task.as_str(), !waits, cut_offs, waits])?;
    Ok(if waits { Begun::Wait { cut_offs } } else { Begun::Run { cut_offs } })
}

fn insert(connection: &Connection, run: &Run) -> rusqlite::Result<usize> {
    connection
        .prepare_cached("DELETE FROM starts WHERE entry = ?1")?
        .execute([run.entry.as_str()])?;
    if run.outcome.is_success() {
        connection
            .prepare_cached("DELETE FROM crashes WHERE task = ?1")?
            .execute([run.task.as_str()])?;
    }
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
    use loopabull_model::TaskKind;

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
        let failed = run("r-1", "m-1", retry());
        Journal::open(state.path()).unwrap().record(failed.clone()).await.unwrap();
        let journal = Journal::open(state.path()).unwrap();
        assert_eq!(journal.find(RunId::new("r-1")).await.unwrap(), Some(failed));
        assert_eq!(journal.find(RunId::new("r-2")).await.unwrap(), None);
    }

    async fn begin(journal: &Journal, attempt: u32) -> Begun {
        let (entry, task) = (EntryId::new("entry of m-1"), "t".try_into().unwrap());
        journal.begin(&entry, &task, attempt).await.unwrap()
    }

    fn retry() -> Outcome {
        Outcome::Retry { reason: "x".into(), after: None }
    }

    #[tokio::test]
    async fn an_entry_that_succeeded_does_not_begin_again() {
        let state = tempfile::tempdir().unwrap();
        let journal = Journal::open(state.path()).unwrap();
        journal.record(run("r-1", "m-1", Outcome::Success)).await.unwrap();
        assert_eq!(begin(&journal, 1).await, Begun::Succeeded);
        assert_eq!(begin(&journal, 2).await, Begun::Succeeded);
        let other = journal.begin(&EntryId::new("other"), &"t".try_into().unwrap(), 1).await;
        assert_eq!(other.unwrap(), Begun::Run { cut_offs: 0 });
    }

    #[tokio::test]
    async fn an_attempt_that_had_its_run_is_not_run_again() {
        let state = tempfile::tempdir().unwrap();
        let journal = Journal::open(state.path()).unwrap();
        assert_eq!(begin(&journal, 1).await, Begun::Run { cut_offs: 0 });
        journal.record(run("r-1", "m-1", retry())).await.unwrap();
        let ended = Begun::Ended { outcome: retry(), attempt: 1, output: "text".into() };
        assert_eq!(begin(&journal, 1).await, ended);
        assert_eq!(begin(&journal, 2).await, Begun::Run { cut_offs: 0 });
    }

    #[tokio::test]
    async fn what_was_cut_off_more_than_once_waits_before_it_is_run_again() {
        let state = tempfile::tempdir().unwrap();
        let expected = [
            vec![Begun::Run { cut_offs: 0 }],
            vec![Begun::Run { cut_offs: 1 }],
            vec![Begun::Wait { cut_offs: 2 }, Begun::Run { cut_offs: 2 }],
            vec![Begun::Run { cut_offs: 3 }],
        ];
        for life in expected {
            let journal = Journal::open(state.path()).unwrap();
            journal.take_crashed().await.unwrap();
            for begun in life {
                assert_eq!(begin(&journal, 1).await, begun);
            }
        }
        let journal = Journal::open(state.path()).unwrap();
        journal.record(run("r-1", "m-1", Outcome::Cancelled)).await.unwrap();
        assert_eq!(begin(&journal, 1).await, Begun::Run { cut_offs: 0 });
    }

    #[tokio::test]
    async fn tasks_that_were_running_when_daemons_died_are_counted_until_they_succeed() {
        let state = tempfile::tempdir().unwrap();
        let die = async || {
            let journal = Journal::open(state.path()).unwrap();
            let crashed = journal.take_crashed().await.unwrap();
            assert_eq!(journal.take_crashed().await.unwrap(), []);
            let entry = EntryId::new(uuid::Uuid::new_v4().to_string());
            journal.begin(&entry, &"t".try_into().unwrap(), 1).await.unwrap();
            crashed.into_iter().map(|crashed| crashed.count).collect::<Vec<_>>()
        };
        assert_eq!(die().await, [0; 0]);
        assert_eq!(die().await, [1]);
        assert_eq!(die().await, [2]);
        let journal = Journal::open(state.path()).unwrap();
        journal.record(run("r-1", "m-2", Outcome::Success)).await.unwrap();
        drop(journal);
        assert_eq!(die().await, [1]);
    }

    /// A crash may leave any part of the last transaction on disk. The journal opens again and holds
    /// what was recorded before; of the last run all or nothing.
    #[tokio::test]
    async fn a_journal_cut_at_every_byte_of_its_last_transaction_opens_again() {
        let state = tempfile::tempdir().unwrap();
        let journal = Journal::open(state.path()).unwrap();
        for number in 0..5 {
            let id = format!("r-{number}");
            journal.record(run(&id, "m-1", Outcome::Success)).await.unwrap();
        }
        let files = ["journal.db", "journal.db-wal"].map(|name| state.path().join(name));
        let before = std::fs::metadata(&files[1]).unwrap().len() as usize;
        journal.record(run("r-5", "m-1", Outcome::Success)).await.unwrap();
        let [file, log] = files.map(|path| std::fs::read(path).unwrap());
        assert!(log.len() > before);
        for length in before..=log.len() {
            let cut = tempfile::tempdir().unwrap();
            std::fs::write(cut.path().join("journal.db"), &file).unwrap();
            std::fs::write(cut.path().join("journal.db-wal"), &log[..length]).unwrap();
            let runs = Journal::open(cut.path()).unwrap().count().await.unwrap();
            let expected = if length == log.len() { 6 } else { 5 };
            assert_eq!(runs, [("success".to_owned(), expected)], "{length} of {}", log.len());
        }
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
