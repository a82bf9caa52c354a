//! SQLite with the statements that a queue and a journal need, and nothing around them.

use std::time::Instant;

use anyhow::Result;
use rusqlite::{Connection, params};

use crate::body::body;

const TABLES: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE entries (id INTEGER PRIMARY KEY, entry TEXT UNIQUE, message TEXT);
    CREATE TABLE runs (id INTEGER PRIMARY KEY, entry TEXT, at INTEGER, outcome TEXT, message TEXT);
    CREATE INDEX runs_of_entry ON runs (entry);";

/// Takes messages through a file on the disk of the current directory, and returns the seconds from the first run. The
/// entries are inserted before.
pub(crate) fn cycle(messages: u32, group: u32) -> Result<f64> {
    let folder = tempfile::tempdir_in(".")?;
    let mut file = Connection::open(folder.path().join("raw.db"))?;
    file.execute_batch(TABLES)?;
    let body = body();
    for first in (0..messages).step_by(group as usize) {
        let transaction = file.transaction()?;
        for number in first..messages.min(first + group) {
            transaction
                .prepare_cached("INSERT INTO entries (entry, message) VALUES (?1, ?2)")?
                .execute(params![format!("{number:032x}"), body])?;
        }
        transaction.commit()?;
    }
    let start = Instant::now();
    for first in (0..messages).step_by(group as usize) {
        let transaction = file.transaction()?;
        let read: Vec<(i64, String, String)> = transaction
            .prepare_cached("SELECT id, entry, message FROM entries ORDER BY id LIMIT ?1")?
            .query_map([group], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect::<Result<_, _>>()?;
        for (id, entry, message) in read {
            transaction
                .prepare_cached(
                    "INSERT INTO runs (entry, at, outcome, message) VALUES (?1, ?2, 'success', ?3)",
                )?
                .execute(params![entry, first, message])?;
            transaction.prepare_cached("DELETE FROM entries WHERE id = ?1")?.execute([id])?;
        }
        transaction.commit()?;
    }
    Ok(start.elapsed().as_secs_f64())
}
