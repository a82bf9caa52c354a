//! A SQLite file with one writer thread and group commit.
//!
//! This crate chooses the settings of the file: WAL, `synchronous=FULL`, and a busy timeout, because other
//! processes may also open the file. A change is on disk when its caller gets the result. The crate does not
//! know the content of the file: the queue and the journal have their own SQL.
//!
//! Callers pass closures to the writer thread. The thread takes all waiting closures, up to `MAX_GROUP`, and
//! runs them in one transaction. After the commit, it answers each caller. So a hundred publishers share the
//! cost of one `fsync`.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;

/// Maximum number of changes in one commit.
const MAX_GROUP: usize = 256;

/// Capacity of the channel to the thread. While the channel is full, callers wait.
const MAX_WAITING: usize = 4096;

/// Interval at which a caller retries while the channel is full.
const RETRY_INTERVAL: Duration = Duration::from_millis(1);

/// Time for which a change waits if another process has locked the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// A SQLite file and the thread that writes to it.
#[derive(Debug)]
pub struct Store {
    changes: Option<mpsc::SyncSender<Change>>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
}

/// The reason why an operation on a store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot open the file `{path}`")]
    Open { path: PathBuf, source: rusqlite::Error },
    #[error("the file `{path}` has version {found}, but this program needs version {version}")]
    Version { path: PathBuf, found: i32, version: i32 },
    #[error("cannot start the writer thread of the file `{path}`")]
    Thread { path: PathBuf, source: std::io::Error },
    #[error("cannot change the file `{path}`")]
    Change { path: PathBuf, source: rusqlite::Error },
    #[error("cannot read the file `{path}`")]
    Read { path: PathBuf, source: rusqlite::Error },
    #[error("cannot commit to the file `{path}`: {reason}")]
    Commit { path: PathBuf, reason: String },
    #[error("the writer thread of the file `{path}` has ended")]
    Gone { path: PathBuf },
}

/// A change that waits for the writer thread. The thread calls the change in a transaction, and keeps the
/// answer until the commit. If the transaction cannot begin, the argument is `None`: the change does not run,
/// and its caller gets the error.
type Change = Box<dyn FnOnce(Option<&Connection>) -> Answer + Send>;
/// Sends the result of a change to the caller. The argument is the result of the commit.
type Answer = Box<dyn FnOnce(Result<(), String>) + Send>;

impl Store {
    /// Opens a file. If the file has no tables, creates them with the SQL statements in `schema`, and stores
    /// `version` in the file. A file with another version is refused.
    pub fn open(path: &Path, schema: &str, version: i32) -> Result<Self, StoreError> {
        let cannot = |source| StoreError::Open { path: path.to_owned(), source };
        let connection = connect(path).map_err(cannot)?;
        let found = initialize(&connection, schema, version).map_err(cannot)?;
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

    /// Runs a change, and returns its result when the change is on disk.
    ///
    /// If a change fails, only this change is rolled back. The other changes of its group are committed.
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
                // The result is ignored, because the caller may have been cancelled. The change is committed
                // nevertheless.
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
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
        receiver.await.map_err(|_| self.gone())?
    }

    /// Runs a query on a separate connection. The query sees only committed data. It does not wait for
    /// changes, and changes do not wait for it.
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
    /// Waits until all submitted changes are on disk.
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

/// Creates the schema if the file has no tables. Returns the version of the file.
fn initialize(connection: &Connection, schema: &str, version: i32) -> rusqlite::Result<i32> {
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
        // IMMEDIATE takes the write lock at the start. Otherwise a change could read data that another
        // process changes before the write.
        let committed = match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
            Ok(transaction) => {
                answers.push(first(Some(&transaction)));
                // If the disk is full, SQLite rolls the transaction back by itself. A later change would then
                // run without a transaction and be committed at once, although its caller gets an error. So
                // the group ends there.
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
    async fn confirmed_changes_survive_reopening() {
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
    async fn a_failed_change_is_rolled_back_alone() {
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

    /// A crash may leave any part of the last transaction on disk. The file must then open with all earlier
    /// transactions, and with the last transaction either complete or absent.
    #[tokio::test]
    async fn a_file_truncated_at_any_byte_of_its_last_transaction_opens_again() {
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
        let rows_after_truncation = |length: usize| {
            let copy = folder.path().join(format!("{length}.db"));
            std::fs::write(&copy, &main).unwrap();
            std::fs::write(copy.with_extension("db-wal"), &log[..length]).unwrap();
            let connection = connect(&copy).unwrap();
            assert_eq!(initialize(&connection, SCHEMA, 1).unwrap(), 1);
            insert(11)(&connection).unwrap();
            let rows = count(&connection).unwrap();
            drop(connection);
            std::fs::remove_file(copy).unwrap();
            rows
        };
        for length in before..log.len() {
            let rows = rows_after_truncation(length);
            assert_eq!(rows, 10 + 1, "log truncated to {length} of {} bytes", log.len());
        }
        assert_eq!(rows_after_truncation(log.len()), 11 + 1);
    }

    #[test]
    fn a_file_of_another_version_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        drop(Store::open(&path, SCHEMA, 1).unwrap());
        let error = Store::open(&path, SCHEMA, 2).unwrap_err().to_string();
        assert!(error.ends_with("has version 1, but this program needs version 2"), "{error}");
    }

    #[test]
    fn a_file_that_is_not_a_database_is_named_in_the_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        std::fs::write(&path, "not a database, but long enough to look at ".repeat(30)).unwrap();
        let error = Store::open(&path, SCHEMA, 1).unwrap_err().to_string();
        assert_eq!(error, format!("cannot open the file `{}`", path.display()));
    }
}
