//! A SQLite file with one writer thread and group commit.
//!
//! This crate chooses the settings of the file: WAL, and a busy timeout, because other processes may also open the
//! file. A caller says what its change must survive: the end of the machine, then the change is on disk when the caller
//! gets the result (`synchronous=FULL`); or only that of the process, then it is written and not synced
//! (`synchronous=NORMAL`; <https://sqlite.org/pragma.html#pragma_synchronous>). The crate does not know the content of
//! the file: the queue and the journal have their own SQL.
//!
//! Callers pass closures to the writer thread. The thread takes all waiting closures, up to `MAX_GROUP`, and
//! runs them in one transaction, which is synced if one of them needs it. After the commit, it answers each caller. So a
//! hundred publishers share the cost of one `fsync`.

mod error;
mod schema;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

pub use crate::error::StoreError;
pub use crate::schema::Schema;
use crate::writer::{Change, Run, Survives, in_savepoint};

/// Capacity of the channel to the thread. While the channel is full, callers wait.
const MAX_WAITING: usize = 4096;

/// Interval at which a caller retries while the channel is full.
const RETRY_INTERVAL: Duration = Duration::from_millis(1);

/// Number of unused bytes from which a file is shrunk. Fewer are soon used again.
const MIN_UNUSED: u64 = 8 << 20;
/// Maximum number of bytes that are copied to shrink a file.
const MAX_COPIED: u64 = 64 << 20;

/// Time for which the truncation of a file waits for queries. Otherwise a later checkpoint truncates the file.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_millis(100);
/// Maximum number of idle connections for queries.
const MAX_READERS: usize = 4;

/// Time for which a change waits if another process has locked the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// A SQLite file and the thread that writes to it.
#[derive(Debug)]
pub struct Store {
    changes: Option<mpsc::SyncSender<Change>>,
    thread: Option<JoinHandle<()>>,
    readers: Arc<Readers>,
    path: PathBuf,
}

/// The idle connections for queries.
#[derive(Debug, Default)]
struct Readers(Mutex<Vec<Connection>>);

impl Store {
    /// Opens a file. Creates its tables, or upgrades a file that an earlier version of this program wrote.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened or upgraded, or if a newer version of this program wrote it.
    pub fn open(path: &Path, schema: Schema) -> Result<Self, StoreError> {
        let cannot = |source| StoreError::Open { path: path.to_owned(), source };
        let connection = connect(path).map_err(cannot)?;
        schema::upgrade(&connection, path, schema)?;
        Self::start(path, connection)
    }

    /// Opens a file that a daemon may use now, so it is not upgraded.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened, or if another version of this program wrote it.
    pub fn open_current(path: &Path, schema: Schema) -> Result<Self, StoreError> {
        let cannot = |source| StoreError::Open { path: path.to_owned(), source };
        let connection = connect(path).map_err(cannot)?;
        schema::check_current(&connection, path, schema)?;
        Self::start(path, connection)
    }

    /// Opens a file to read it. Does not upgrade it, since a daemon of the version that wrote it may still run.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened, or if its version is unknown.
    pub fn open_to_read(path: &Path, schema: Schema) -> Result<Self, StoreError> {
        let cannot = |source| StoreError::Open { path: path.to_owned(), source };
        let connection = connect(path).map_err(cannot)?;
        schema::check(&connection, path, schema)?;
        Self::start(path, connection)
    }

    fn start(path: &Path, connection: Connection) -> Result<Self, StoreError> {
        let (changes, waiting) = mpsc::sync_channel(MAX_WAITING);
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || writer::run(connection, waiting))
            .map_err(|source| StoreError::Thread { path: path.to_owned(), source })?;
        let (readers, path) = (Arc::default(), path.to_owned());
        Ok(Self { changes: Some(changes), thread: Some(thread), readers, path })
    }

    /// Runs a change, and returns its result when the change is on disk.
    ///
    /// If a change fails, only this change is rolled back. The other changes of its group are committed.
    pub async fn change<T, F>(&self, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.submit(Survives::Machine, change).await
    }

    /// Does the same as [`Store::change`], but returns when the change is written. The change survives the end of this
    /// process. If the machine loses power before the next synced change, it may be lost, together with all later
    /// changes of this kind; the file stays valid.
    pub async fn change_unsynced<T, F>(&self, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.submit(Survives::Process, change).await
    }

    async fn submit<T, F>(&self, survives: Survives, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let path = self.path.clone();
        let run: Run = Box::new(move |connection| {
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
        let mut waiting = Change { survives, run };
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

    /// Gives the space that the file does not use back to the file system, if most of the file is unused and the rest is
    /// small. Changes wait meanwhile.
    pub async fn shrink(&self) -> Result<(), StoreError> {
        self.read(|connection| {
            let pragma =
                |name| connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
            let size = pragma("page_size")?;
            let (all, unused) = (pragma("page_count")? * size, pragma("freelist_count")? * size);
            if unused >= MIN_UNUSED && unused >= all / 4 * 3 && all - unused <= MAX_COPIED {
                // The file itself is truncated by the checkpoint.
                connection.execute_batch("VACUUM")?;
                // The checkpoint keeps writers waiting while a query is in progress.
                connection.busy_timeout(CHECKPOINT_TIMEOUT)?;
                connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
                connection.busy_timeout(BUSY_TIMEOUT)?;
            }
            Ok(())
        })
        .await
    }

    /// Runs a query on a separate connection. The query sees only committed data. It does not wait for
    /// changes, and changes do not wait for it.
    pub async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (path, readers) = (self.path.clone(), Arc::clone(&self.readers));
        let read = move || readers.query(&path, query);
        let result = tokio::task::spawn_blocking(read).await.map_err(|_| self.gone())?;
        result.map_err(|source| StoreError::Read { path: self.path.clone(), source })
    }

    /// Does the same as [`Store::read`], but on the calling thread. That is cheaper for a query that reads a few pages
    /// through an index. It waits only while the file is shrunk.
    pub fn look_up<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let result = self.readers.query(&self.path, query);
        result.map_err(|source| StoreError::Read { path: self.path.clone(), source })
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn gone(&self) -> StoreError {
        StoreError::Gone { path: self.path.clone() }
    }
}

impl Drop for Store {
    /// Waits until all submitted changes are written.
    fn drop(&mut self) {
        drop(self.changes.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Readers {
    /// Runs a query on an idle connection, or on a new one. A connection whose query failed is closed.
    fn query<T>(
        &self,
        path: &Path,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let idle = self.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => {
                let connection = Connection::open(path)?;
                connection.busy_timeout(BUSY_TIMEOUT)?;
                connection
            }
        };
        let result = query(&connection)?;
        let mut idle = self.lock();
        if idle.len() < MAX_READERS {
            idle.push(connection);
        }
        Ok(result)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // SQLite would otherwise write a temporary file for each savepoint, to be able to undo it.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: Schema =
        Schema { oldest: 1, steps: &["CREATE TABLE t (n INTEGER PRIMARY KEY) STRICT"] };

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
        let store = Store::open(&path, SCHEMA).unwrap();
        for n in 0..1000 {
            store.change(insert(n)).await.unwrap();
        }
        drop(store);
        let store = Store::open(&path, SCHEMA).unwrap();
        assert_eq!(store.change(count).await.unwrap(), 1000);
    }

    #[tokio::test]
    async fn a_failed_change_is_rolled_back_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("a.db"), SCHEMA).unwrap();
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

    /// Another process sees what was written, so it survives the end of this process.
    #[tokio::test]
    async fn a_change_is_synced_only_if_it_must_survive_the_machine() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let store = Store::open(&path, SCHEMA).unwrap();
        let level = |n| {
            move |connection: &Connection| {
                insert(n)(connection)?;
                connection.pragma_query_value(None, "synchronous", |row| row.get::<_, u8>(0))
            }
        };
        for n in [0, 10] {
            assert_eq!(store.change(level(n)).await.unwrap(), 2);
            assert_eq!(store.change_unsynced(level(n + 1)).await.unwrap(), 1);
            // In a group of both kinds, all are synced.
            let both =
                tokio::join!(store.change_unsynced(level(n + 2)), store.change(level(n + 3)),);
            assert_eq!(both.1.unwrap(), 2);
            both.0.unwrap();
        }
        assert_eq!(count(&Connection::open(&path).unwrap()).unwrap(), 8);
        let twice = store.change_unsynced(level(0)).await;
        assert!(matches!(twice, Err(StoreError::Change { .. })));
    }

    #[tokio::test]
    async fn queries_reuse_their_connections_and_see_each_commit() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("a.db"), SCHEMA).unwrap();
        for n in 0..10 {
            store.change(insert(n)).await.unwrap();
            assert_eq!(store.read(count).await.unwrap(), n + 1);
        }
        assert_eq!(store.readers.lock().len(), 1);
        let failed = store.read(|connection| connection.execute("nonsense", [])).await;
        assert!(failed.is_err() && store.readers.lock().is_empty());
    }

    #[tokio::test]
    async fn a_file_shrinks_if_most_of_it_is_unused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let tables = Schema { oldest: 1, steps: &["CREATE TABLE b (bytes BLOB)"] };
        let store = Store::open(&path, tables).unwrap();
        let fill = |connection: &Connection| {
            let sql =
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
                       INSERT INTO b SELECT zeroblob(3000) FROM n";
            connection.execute(sql, [])
        };
        store.change(fill).await.unwrap();
        let pages = |connection: &Connection| {
            connection.pragma_query_value(None, "page_count", |row| row.get::<_, u32>(0))
        };
        for (delete, is_small) in [
            ("DELETE FROM b WHERE rowid <= 2000", false),
            ("DELETE FROM b WHERE rowid > 2008", true),
        ] {
            store.change(|connection| connection.execute(delete, [])).await.unwrap();
            store.shrink().await.unwrap();
            assert_eq!(store.read(pages).await.unwrap() < 50, is_small, "{delete}");
            let size = std::fs::metadata(&path).unwrap().len();
            assert_eq!(size < 200_000, is_small, "{size} bytes after {delete}");
        }
        let rows = |connection: &Connection| {
            connection.query_row("SELECT count(*) FROM b", [], |row| row.get::<_, i64>(0))
        };
        assert_eq!(store.change(rows).await.unwrap(), 8);
    }

    #[tokio::test]
    async fn two_stores_share_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let stores = [Store::open(&path, SCHEMA).unwrap(), Store::open(&path, SCHEMA).unwrap()];
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
        let store = Store::open(&path, SCHEMA).unwrap();
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
            schema::upgrade(&connection, &copy, SCHEMA).unwrap();
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
    fn a_file_that_is_not_a_database_is_named_in_the_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        std::fs::write(&path, "not a database, but long enough to look at ".repeat(30)).unwrap();
        let error = Store::open(&path, SCHEMA).unwrap_err().to_string();
        assert_eq!(error, format!("cannot open the file `{}`", path.display()));
    }
}
