//! Takes over the entries of earlier versions, which had the queues in a file of their own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use loopabull_store::Store;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, params_from_iter};

use super::lock::try_lock;
use crate::error::QueueError;

/// The name of the file, beside the present one.
const NAME: &str = "queue.db";
/// The only version of the file.
const VERSION: i32 = 3;
/// Number of columns that are copied.
const COLUMNS: usize = 13;
/// Time to wait for another process that uses the file, or takes it over too.
const TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Returns the file of an earlier version that waits to be taken over, if there is one. `file` is the present one.
pub fn earlier_file(file: &Path) -> Option<PathBuf> {
    Some(file.with_file_name(NAME)).filter(|file| file.exists())
}

/// Moves the entries of an earlier version into the file, and deletes the earlier file. If this process is killed, the
/// next one does it again.
pub(super) async fn take_over(store: &Store) -> Result<(), QueueError> {
    let start = Instant::now();
    while let Some(file) = earlier_file(store.path()) {
        let error = match try_lock(store.path())? {
            // Another process may have moved the entries meanwhile.
            Some(_lock) if !file.exists() => return Ok(()),
            Some(_lock) => match move_entries(store, &file).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            },
            None => QueueError::Earlier { file: file.clone() },
        };
        if !matches!(error, QueueError::Earlier { .. }) || start.elapsed() > TIMEOUT {
            return Err(error);
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
    Ok(())
}

/// Moves the entries, for the process that has locked the queues.
pub(super) async fn move_entries(store: &Store, file: &Path) -> Result<(), QueueError> {
    let unreadable = |source| QueueError::Unreadable { file: file.to_owned(), source };
    let earlier =
        Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(unreadable)?;
    earlier.busy_timeout(Duration::ZERO).map_err(unreadable)?;
    let version = earlier.pragma_query_value(None, "user_version", |row| row.get::<_, i32>(0));
    let version = version.map_err(unreadable)?;
    let tables = earlier.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0));
    let tables: u32 = tables.map_err(unreadable)?;
    // A process that was killed right at its start leaves a file without tables.
    if tables > 0 && version != VERSION {
        let (path, known) = (file.to_owned(), VERSION);
        return Err(QueueError::EarlierVersion { file: path, found: version, known });
    }
    // Both fail while another process has the file open. What it published later would be lost.
    let lock = |earlier: &Connection| {
        let mode = earlier.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0));
        let mode: String = mode?;
        earlier.execute_batch("BEGIN EXCLUSIVE")?;
        Ok::<_, rusqlite::Error>(mode)
    };
    match lock(&earlier) {
        Ok(mode) if mode == "delete" => (),
        Ok(_) => return Err(QueueError::Earlier { file: file.to_owned() }),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {
            return Err(QueueError::Earlier { file: file.to_owned() });
        }
        Err(error) => return Err(unreadable(error)),
    }
    let take = move |connection: &Connection| {
        let count = if tables > 0 { copy(&earlier, connection)? } else { 0 };
        Ok((count, earlier))
    };
    let (count, earlier) = store.change(take).await?;
    // The file is locked until it is deleted. If it came back after a loss of power, entries that are done would too.
    delete(file).map_err(|source| QueueError::Delete { file: file.to_owned(), source })?;
    drop(earlier);
    tracing::info!(
        "took over {count} entries from the file `{}` of an earlier version",
        file.display()
    );
    Ok(())
}

fn delete(file: &Path) -> std::io::Result<()> {
    std::fs::remove_file(file)?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Copies all entries in their order. An entry that an earlier copy left is skipped.
fn copy(earlier: &Connection, connection: &Connection) -> rusqlite::Result<usize> {
    let mut entries = earlier.prepare(
        "SELECT queue, entry, task, iif(state = 'claimed', 'waiting', state), attempts, queued_ms, due_ms,
             delayed_ms, died_ms, reason, output, history, message
         FROM entries ORDER BY id",
    )?;
    let mut insert = connection.prepare(
        "INSERT INTO entries (queue, entry, task, state, attempts, queued_ms, due_ms, delayed_ms,
             died_ms, reason, output, history, message)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
         ON CONFLICT (entry) DO NOTHING",
    )?;
    let mut rows = entries.query([])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        let values = (0..COLUMNS).map(|column| row.get::<_, Value>(column));
        let values = values.collect::<rusqlite::Result<Vec<_>>>()?;
        count += insert.execute(params_from_iter(values))?;
    }
    Ok(count)
}
