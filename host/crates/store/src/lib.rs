//! One SQLite file behind one thread, with group commit.
//!
//! Owns how a file of ours is opened (WAL, `synchronous=FULL`, a busy timeout for the commands
//! that look into it from other processes) and that a change is answered only when it is on disk.
//! Knows nothing of what is stored: the queue and the journal bring their own SQL.
//!
//! Callers hand in closures. The thread takes all that wait, up to [`MAX_GROUP`], runs them in one
//! transaction, commits once, and only then answers each. So a hundred publishers pay for one
//! `fsync` together.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;

/// How many changes share a commit at the most.
pub const MAX_GROUP: usize = 256;

/// How many changes may wait for the thread before a caller has to wait too.
const MAX_WAITING: usize = 4096;

/// How long a change waits for another process that holds the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// A SQLite file with the thread that owns its connection.
#[derive(Debug)]
pub struct Store {
    changes: Option<mpsc::SyncSender<Change>>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
}

/// Why a store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot open the file `{path}`")]
    Open { path: PathBuf, source: rusqlite::Error },
    #[error("the file `{path}` has version {found}, this program needs {version}")]
    Version { path: PathBuf, found: i32, version: i32 },
    #[error("cannot start the thread of the file `{path}`")]
    Thread { path: PathBuf, source: std::io::Error },
    #[error("cannot change the file `{path}`")]
    Change { path: PathBuf, source: rusqlite::Error },
    #[error("cannot read the file `{path}`")]
    Read { path: PathBuf, source: rusqlite::Error },
    #[error("cannot commit to the file `{path}`: {reason}")]
    Commit { path: PathBuf, reason: String },
    #[error("the thread of the file `{path}` is gone")]
    Gone { path: PathBuf },
}

/// Runs a change and keeps its result until the commit is known. Without a connection there is no
/// transaction to run it in, and only its caller is answered.
type Change = Box<dyn FnOnce(Option<&Connection>) -> Answer + Send>;
/// Tells the caller, once it is known whether the commit worked.
type Answer = Box<dyn FnOnce(Result<(), String>) + Send>;

impl Store {
    /// Opens the file, makes it if there is none, and brings it to `schema` (statements that may
    /// run again and again, `CREATE TABLE IF NOT EXISTS …`). A file of another version of the schema
    /// is refused.
    pub fn open(path: &Path, schema: &str, version: i32) -> Result<Self, StoreError> {
        let cannot = |source| StoreError::Open { path: path.to_owned(), source };
        let connection = connect(path).map_err(cannot)?;
        let found = bring_to(&connection, schema, version).map_err(cannot)?;
        if found != version {
            return Err(StoreError::Version { path: path.to_owned(), found, version });
        }
        let (changes, waiting) = mpsc::sync_channel(MAX_WAITING);
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || run(connection, waiting))
            .map_err(|source| StoreError::Thread { path: path.to_owned(), source })?;
        Ok(Self { changes: Some(changes), thread: Some(thread), path: path.to_owned() })
    }

    /// Runs a change and returns its result once it is on disk.
    ///
    /// A change that fails is undone alone; the others of its group stand.
    pub async fn change<T, F>(&self, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let path = self.path.clone();
        let mut waiting: Change = Box::new(move |connection| {
            let result = connection.map(|connection| in_savepoint(connection, change));
            Box::new(move |committed| {
                let result = match (result, committed) {
                    (Some(Err(source)), _) => Err(StoreError::Change { path, source }),
                    (Some(Ok(value)), Ok(())) => Ok(value),
                    (_, committed) => {
                        let reason = committed.err().unwrap_or_default();
                        Err(StoreError::Commit { path, reason })
                    }
                };
                // Nobody waits any more if the caller was cancelled; the change stands.
                drop(sender.send(result));
            })
        });
        let changes = self.changes.as_ref().expect("the sender is taken only by drop");
        loop {
            waiting = match changes.try_send(waiting) {
                Ok(()) => break,
                Err(mpsc::TrySendError::Full(change)) => change,
                Err(mpsc::TrySendError::Disconnected(_)) => return Err(self.gone()),
            };
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        receiver.await.map_err(|_| self.gone())?
    }

    /// Runs a query on a connection of its own: it sees what is committed, and neither waits for
    /// changes nor makes one wait.
    pub async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let path = self.path.clone();
        let read = move || {
            let connection = Connection::open(&path)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            query(&connection)
        };
        let result = tokio::task::spawn_blocking(read).await.map_err(|_| self.gone())?;
        result.map_err(|source| StoreError::Read { path: self.path.clone(), source })
    }

    fn gone(&self) -> StoreError {
        StoreError::Gone { path: self.path.clone() }
    }
}

impl Drop for Store {
    /// Waits until everything that was handed in is on disk.
    fn drop(&mut self) {
        drop(self.changes.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Returns the version that the file has now. A file without a table has none yet.
fn bring_to(connection: &Connection, schema: &str, version: i32) -> rusqlite::Result<i32> {
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i32>(0));
    if count("SELECT count(*) FROM sqlite_schema")? == 0 {
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {schema}; PRAGMA user_version = {version}; COMMIT"
        ))?;
    }
    count("PRAGMA user_version")
}

fn run(mut connection: Connection, waiting: mpsc::Receiver<Change>) {
    let mut answers: Vec<Answer> = Vec::with_capacity(MAX_GROUP);
    while let Ok(first) = waiting.recv() {
        // IMMEDIATE: take the write lock at once, so that no read turns stale halfway.
        let committed = match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
            Ok(transaction) => {
                answers.push(first(Some(&transaction)));
                // SQLite ends a transaction by itself when the disk is full; what came after that
                // would be committed while its caller is told that it failed.
                while answers.len() < MAX_GROUP
                    && !transaction.is_autocommit()
                    && let Ok(change) = waiting.try_recv()
                {
                    answers.push(change(Some(&transaction)));
                }
                transaction.commit().map_err(|error| error.to_string())
            }
            Err(error) => {
                answers.push(first(None));
                Err(error.to_string())
            }
        };
        for answer in answers.drain(..) {
            answer(committed.clone());
        }
    }
}

fn in_savepoint<T>(
    connection: &Connection,
    change: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.execute_batch("SAVEPOINT change")?;
    let result = change(connection);
    let end = if result.is_ok() { "RELEASE change" } else { "ROLLBACK TO change; RELEASE change" };
    connection.execute_batch(end)?;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY) STRICT";

    fn insert(n: i64) -> impl FnOnce(&Connection) -> rusqlite::Result<usize> {
        move |connection| connection.execute("INSERT INTO t VALUES (?1)", [n])
    }

    fn count(connection: &Connection) -> rusqlite::Result<i64> {
        connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0))
    }

    #[tokio::test]
    async fn what_was_answered_is_there_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let store = Store::open(&path, SCHEMA, 1).unwrap();
        for n in 0..1000 {
            store.change(insert(n)).await.unwrap();
        }
        drop(store);
        let store = Store::open(&path, SCHEMA, 1).unwrap();
        assert_eq!(store.change(count).await.unwrap(), 1000);
    }

    #[tokio::test]
    async fn a_change_that_fails_is_undone_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("a.db"), SCHEMA, 1).unwrap();
        let twice = |connection: &Connection| {
            insert(2)(connection)?;
            insert(1)(connection)
        };
        let (first, second, third) =
            tokio::join!(store.change(insert(1)), store.change(twice), store.change(insert(3)));
        assert!(first.is_ok() && third.is_ok());
        assert!(matches!(second, Err(StoreError::Change { .. })));
        assert_eq!(store.change(count).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn two_stores_share_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let stores =
            [Store::open(&path, SCHEMA, 1).unwrap(), Store::open(&path, SCHEMA, 1).unwrap()];
        for n in 0..100 {
            stores[n as usize % 2].change(insert(n)).await.unwrap();
        }
        assert_eq!(stores[0].read(count).await.unwrap(), 100);
    }

    /// A crash may leave any part of the last transaction on disk: the file opens again, with all that
    /// was committed before, and with the last one wholly or not at all.
    #[tokio::test]
    async fn a_file_cut_at_every_byte_of_its_last_transaction_opens_again() {
        let folder = tempfile::tempdir().unwrap();
        let (path, log) = (folder.path().join("a.db"), folder.path().join("a.db-wal"));
        let store = Store::open(&path, SCHEMA, 1).unwrap();
        for n in 0..10 {
            store.change(insert(n)).await.unwrap();
        }
        let before = std::fs::metadata(&log).unwrap().len() as usize;
        store.change(insert(10)).await.unwrap();
        let (main, log) = (std::fs::read(&path).unwrap(), std::fs::read(log).unwrap());
        assert!(log.len() > before);
        let cut_at = |length: usize| {
            let copy = folder.path().join(format!("{length}.db"));
            std::fs::write(&copy, &main).unwrap();
            std::fs::write(copy.with_extension("db-wal"), &log[..length]).unwrap();
            let connection = connect(&copy).unwrap();
            assert_eq!(bring_to(&connection, SCHEMA, 1).unwrap(), 1);
            insert(11)(&connection).unwrap();
            let rows = count(&connection).unwrap();
            drop(connection);
            std::fs::remove_file(copy).unwrap();
            rows
        };
        for length in before..log.len() {
            assert_eq!(cut_at(length), 10 + 1, "{length} of {} bytes", log.len());
        }
        assert_eq!(cut_at(log.len()), 11 + 1);
    }

    #[test]
    fn a_file_of_another_version_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        drop(Store::open(&path, SCHEMA, 1).unwrap());
        let error = Store::open(&path, SCHEMA, 2).unwrap_err().to_string();
        assert!(error.ends_with("has version 1, this program needs 2"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_database_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        std::fs::write(&path, "not a database, but long enough to look at ".repeat(30)).unwrap();
        let error = Store::open(&path, SCHEMA, 1).unwrap_err().to_string();
        assert_eq!(error, format!("cannot open the file `{}`", path.display()));
    }
}
