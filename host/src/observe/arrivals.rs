//! Notes what arrived lately, whether or not it ran. The notes answer: did this message arrive, and what became of it?
//!
//! Sources note each message and each rejected envelope here. They only add to a list in memory; a part of the daemon writes
//! the list to the file `arrivals.db` a few times a second. A note that is lost, because the file cannot be written or the
//! daemon dies, is no loss of a message. The file keeps the newest notes only.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use loopabull_model::{EntryId, TaskName};
use loopabull_store::{Schema, Store, StoreError};
use parking_lot::Mutex;
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::observe::metrics::Metrics;

const SCHEMA: Schema = Schema { oldest: 1, steps: &[TABLES] };

/// There is no index besides the order of arrival: notes are written all the time, and searched rarely.
const TABLES: &str = "
    CREATE TABLE arrivals (
        id INTEGER PRIMARY KEY,
        at_ms INTEGER NOT NULL,
        source TEXT NOT NULL,
        message TEXT,          -- NULL if it could not be read
        topic TEXT,
        verdict TEXT NOT NULL  -- JSON
    ) STRICT;";
/// The name of the file in the state directory.
const FILE: &str = "arrivals.db";
/// The time between two writes.
const WRITE_INTERVAL: Duration = Duration::from_millis(250);
/// The number of notes in memory above which further ones are dropped.
const MAX_PENDING: usize = 50_000;
/// The number of characters of a text that are kept. Valid ids and topics are shorter.
const MAX_TEXT: usize = 256;

/// A message that arrived, or an envelope that was rejected.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize, ToSchema)]
pub(crate) struct Arrival {
    /// In milliseconds since 1970.
    pub at_ms: i64,
    pub source: String,
    /// The id of the message, if it could be read.
    pub message: Option<String>,
    pub topic: Option<String>,
    pub verdict: Verdict,
}

/// An arrival, as it was noted.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize, ToSchema)]
pub(crate) struct Noted {
    /// Number of the note.
    pub id: i64,
    #[serde(flatten)]
    pub arrival: Arrival,
}

/// The fate of a message when it arrived.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// It was accepted for these tasks, and is a duplicate for the others. A further note says for which of the tasks it was
    /// lost.
    Accepted { tasks: Vec<Stored>, duplicate_for: Vec<TaskName> },
    /// No task wants its topic.
    Unrouted,
    /// It was not accepted.
    Rejected { reason: String },
    /// It could not be stored for this task.
    Lost { task: TaskName },
}

impl fmt::Display for Verdict {
    /// Writes what became of the message, in a few words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted { tasks, duplicate_for } => {
                let tasks: Vec<_> = tasks.iter().map(|stored| stored.task.to_string()).collect();
                let others: Vec<_> = duplicate_for.iter().map(ToString::to_string).collect();
                let mut parts = Vec::new();
                if !tasks.is_empty() {
                    parts.push(format!("accepted for {}", tasks.join(", ")));
                }
                if !others.is_empty() {
                    parts.push(format!("duplicate for {}", others.join(", ")));
                }
                f.write_str(&parts.join("; "))
            }
            Self::Unrouted => f.write_str("no task wants it"),
            Self::Rejected { reason } => write!(f, "rejected: {reason}"),
            Self::Lost { task } => write!(f, "lost for {task}"),
        }
    }
}

/// A task for which a message was stored, and the entry.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize, ToSchema)]
pub(crate) struct Stored {
    pub task: TaskName,
    pub entry: EntryId,
}

/// The notes of the last arrivals.
#[derive(Debug)]
pub(crate) struct Arrivals {
    /// `None` if nothing is noted.
    store: Option<Store>,
    /// The number of notes that are kept.
    keep: u64,
    pending: Mutex<Vec<Arrival>>,
    noted: Notify,
}

/// A selection of arrivals.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Which {
    All,
    OfMessage(String),
    OfTopic(String),
}

impl Arrivals {
    /// Opens the file in a state directory, to keep this number of notes. Creates it if it is missing. If that fails, or with
    /// `keep` 0, nothing is noted.
    pub(crate) fn open(state: &Path, keep: u64) -> Self {
        let open = || match Store::open(&state.join(FILE), SCHEMA) {
            Ok(store) => Some(store),
            Err(error) => {
                tracing::warn!("arrivals are not noted: {}", loopabull_model::chain(&error));
                None
            }
        };
        Self::new(if keep == 0 { None } else { open() }, keep)
    }

    /// Opens the file in a state directory to read it. `None` if there is none.
    pub(crate) fn open_to_read(state: &Path) -> Result<Option<Self>, StoreError> {
        let file = state.join(FILE);
        if !file.exists() {
            return Ok(None);
        }
        Store::open_to_read(&file, SCHEMA).map(|store| Some(Self::new(Some(store), 0)))
    }

    fn new(store: Option<Store>, keep: u64) -> Self {
        Self { store, keep, pending: Mutex::default(), noted: Notify::new() }
    }

    /// Notes an arrival. `message` and `topic` are those of the message, as far as they could be read.
    pub(crate) fn note(
        &self,
        source: &str,
        message: Option<&str>,
        topic: Option<&str>,
        verdict: Verdict,
        metrics: &Metrics,
    ) {
        if self.store.is_none() {
            return;
        }
        let mut pending = self.pending.lock();
        if pending.len() >= MAX_PENDING {
            metrics.arrivals_not_noted.inc();
            return;
        }
        let [source, message, topic] = [Some(source), message, topic].map(|text| text.map(cut));
        let source = source.unwrap_or_default();
        pending.push(Arrival { at_ms: now_ms(), source, message, topic, verdict: verdict.cut() });
        if pending.len() == 1 {
            self.noted.notify_one();
        }
    }

    /// Writes the notes to the file until the daemon stops, and the last ones then. Notes that cannot be written are counted.
    pub(crate) async fn write(&self, metrics: &Metrics, stop: CancellationToken) {
        let mut is_failing = false;
        loop {
            let is_last = tokio::select! {
                () = self.noted.notified() => {
                    tokio::time::sleep(WRITE_INTERVAL).await;
                    false
                }
                () = stop.cancelled() => true,
            };
            let pending = std::mem::take(&mut *self.pending.lock());
            let count = pending.len() as u64;
            match self.store(pending).await {
                Ok(()) => is_failing = false,
                Err(error) => {
                    metrics.arrivals_not_noted.inc_by(count);
                    // The first of several errors is enough.
                    if !is_failing {
                        let error = loopabull_model::chain(&error);
                        tracing::warn!("cannot note what arrived: {error}");
                    }
                    is_failing = true;
                }
            }
            if is_last {
                return;
            }
        }
    }

    async fn store(&self, notes: Vec<Arrival>) -> Result<(), StoreError> {
        let Some(store) = self.store.as_ref().filter(|_| !notes.is_empty()) else { return Ok(()) };
        let keep = i64::try_from(self.keep).unwrap_or(i64::MAX);
        let insert = move |connection: &Connection| {
            let mut insert = connection.prepare_cached(
                "INSERT INTO arrivals (at_ms, source, message, topic, verdict) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            for Arrival { at_ms, source, message, topic, verdict } in &notes {
                let verdict =
                    serde_json::to_string(verdict).expect("a verdict has only JSON types");
                insert.execute(params![at_ms, source, message, topic, verdict])?;
            }
            let last = connection.last_insert_rowid();
            let old = "DELETE FROM arrivals WHERE id <= ?1";
            connection.execute(old, [last.saturating_sub(keep)]).map(drop)
        };
        store.change_unsynced(insert).await
    }

    /// Returns up to `limit` arrivals before a note, newest first.
    pub(crate) async fn list(
        &self,
        which: Which,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Noted>, StoreError> {
        let before = before.unwrap_or(i64::MAX);
        let query = move |connection: &Connection| {
            let (condition, value) = match &which {
                Which::All => ("?2 IS NULL", None),
                Which::OfMessage(id) => ("message = ?2", Some(id)),
                Which::OfTopic(topic) => ("topic = ?2", Some(topic)),
            };
            let sql = format!(
                "SELECT * FROM arrivals WHERE {condition} AND id < ?3 ORDER BY id DESC LIMIT ?1"
            );
            connection.prepare(&sql)?.query_map(params![limit, value, before], noted)?.collect()
        };
        self.read(query).await.map(Option::unwrap_or_default)
    }

    async fn read<T, F>(&self, query: F) -> Result<Option<T>, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        match &self.store {
            Some(store) => store.read(query).await.map(Some),
            None => Ok(None),
        }
    }

    /// Returns since when arrivals are noted, in milliseconds since 1970.
    pub(crate) async fn since(&self) -> Result<Option<i64>, StoreError> {
        let query = |connection: &Connection| {
            connection.query_row(
                "SELECT (SELECT at_ms FROM arrivals ORDER BY id LIMIT 1)",
                [],
                |row| row.get(0),
            )
        };
        self.read(query).await.map(Option::flatten)
    }
}

fn noted(row: &Row<'_>) -> rusqlite::Result<Noted> {
    let verdict: String = row.get("verdict")?;
    let unreadable = || Verdict::Rejected { reason: "this note cannot be read".to_owned() };
    let arrival = Arrival {
        at_ms: row.get("at_ms")?,
        source: row.get("source")?,
        message: row.get("message")?,
        topic: row.get("topic")?,
        verdict: serde_json::from_str(&verdict).unwrap_or_else(|_| unreadable()),
    };
    Ok(Noted { id: row.get("id")?, arrival })
}

/// Cuts a text that could be long, because a rejected envelope can contain anything.
fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl Verdict {
    fn cut(self) -> Self {
        match self {
            Self::Rejected { reason } => Self::Rejected { reason: cut(&reason) },
            other => other,
        }
    }
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(arrivals: &Arrivals, id: &str, topic: &str) {
        arrivals.note("bus", Some(id), Some(topic), Verdict::Unrouted, &Metrics::default());
    }

    /// Stops the part that writes, which then writes what is left.
    async fn flush(arrivals: &Arrivals) {
        let stop = CancellationToken::new();
        stop.cancel();
        arrivals.write(&Metrics::default(), stop).await;
    }

    async fn ids(arrivals: &Arrivals, which: Which) -> Vec<String> {
        let list = arrivals.list(which, None, 10).await.unwrap();
        list.into_iter().map(|noted| noted.arrival.message.unwrap()).collect()
    }

    #[tokio::test]
    async fn the_newest_arrivals_are_kept() {
        let state = tempfile::tempdir().unwrap();
        let arrivals = Arrivals::open(state.path(), 3);
        assert_eq!(arrivals.since().await.unwrap(), None);
        for number in 0..5 {
            note(&arrivals, &format!("m-{number}"), if number == 3 { "b" } else { "a" });
        }
        flush(&arrivals).await;
        assert_eq!(ids(&arrivals, Which::All).await, ["m-4", "m-3", "m-2"]);
        let newest = arrivals.list(Which::All, None, 1).await.unwrap()[0].id;
        let before = arrivals.list(Which::All, Some(newest), 1).await.unwrap();
        assert_eq!(before[0].arrival.message.as_deref(), Some("m-3"));
        assert_eq!(ids(&arrivals, Which::OfTopic("a".into())).await, ["m-4", "m-2"]);
        assert_eq!(ids(&arrivals, Which::OfMessage("m-3".into())).await, ["m-3"]);
        assert_eq!(ids(&arrivals, Which::OfMessage("m-0".into())).await, Vec::<String>::new());
        let since = arrivals.since().await.unwrap().unwrap();
        assert!((now_ms() - 60_000..=now_ms()).contains(&since));
        let again = Arrivals::open_to_read(state.path()).unwrap().unwrap();
        assert_eq!(ids(&again, Which::All).await.len(), 3);
    }

    #[tokio::test]
    async fn too_many_arrivals_are_not_noted_but_counted() {
        let state = tempfile::tempdir().unwrap();
        let (arrivals, metrics) = (Arrivals::open(state.path(), 10), Metrics::default());
        for _ in 0..MAX_PENDING + 3 {
            arrivals.note("bus", None, None, Verdict::Unrouted, &metrics);
        }
        assert_eq!(metrics.arrivals_not_noted.get(), 3);
        let off = Arrivals::open(state.path(), 0);
        note(&off, "m-1", "a");
        assert!(off.pending.lock().is_empty());
    }

    #[tokio::test]
    async fn long_texts_are_cut() {
        let state = tempfile::tempdir().unwrap();
        let arrivals = Arrivals::open(state.path(), 10);
        let long = "ä".repeat(1_000_000);
        let verdict = Verdict::Rejected { reason: long.clone() };
        arrivals.note("bus", Some(&long), Some(&long), verdict, &Metrics::default());
        flush(&arrivals).await;
        let noted = &arrivals.list(Which::All, None, 1).await.unwrap()[0].arrival;
        assert_eq!(noted.message.as_ref().unwrap().chars().count(), MAX_TEXT + 1);
        assert!(serde_json::to_string(noted).unwrap().len() < 10_000);
    }

    /// A file that cannot be opened stops nothing.
    #[tokio::test]
    async fn without_a_file_nothing_is_noted() {
        let state = tempfile::tempdir().unwrap();
        std::fs::write(state.path().join(FILE), "no database, but some text that is long enough")
            .unwrap();
        let arrivals = Arrivals::open(state.path(), 10);
        note(&arrivals, "m-1", "a");
        flush(&arrivals).await;
        assert_eq!(ids(&arrivals, Which::All).await, Vec::<String>::new());
        assert_eq!(arrivals.since().await.unwrap(), None);
    }

    #[tokio::test]
    async fn the_last_arrivals_are_written_at_the_stop() {
        let state = tempfile::tempdir().unwrap();
        let arrivals = Arrivals::open(state.path(), 10);
        note(&arrivals, "m-1", "a");
        flush(&arrivals).await;
        assert_eq!(ids(&arrivals, Which::All).await, ["m-1"]);
    }
}
