//! Deletes old runs from the journal, a few at a time, so that workers wait only for moments.
//!
//! The journal recognises an entry that already had its run, if its delivery was not settled. So no run is deleted while
//! an attempt of its entry is in progress or while messages of it wait in the outbox, and none that is younger than
//! [`MIN_AGE`].

use std::time::Duration;

use rusqlite::{Connection, params};

/// The number of runs that are deleted in one change.
const STEP: u32 = 200;
/// The age below which no run is deleted, even if the journal is too large. A delivery is redelivered long before, if it
/// was not settled.
const MIN_AGE: Duration = Duration::from_hours(1);

/// How long runs are kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Retention {
    /// For successful runs.
    pub keep: Duration,
    /// For all other runs.
    pub keep_failed: Duration,
    /// The size of the journal above which the oldest runs are deleted, successful ones first. In bytes.
    pub max_size: u64,
}

/// Deletes up to [`STEP`] runs that need not be kept. Returns their number.
pub(super) fn delete_some(
    connection: &Connection,
    retention: Retention,
    now_ms: i64,
) -> rusqlite::Result<usize> {
    let before = |age: Duration| {
        let age = i64::try_from(age.max(MIN_AGE).as_millis()).unwrap_or(i64::MAX);
        now_ms.saturating_sub(age)
    };
    let (successful, all) = ("outcome_name = 'success' AND", "");
    for (which, age) in [(successful, retention.keep), (all, retention.keep_failed)] {
        let deleted = delete(connection, which, before(age))?;
        if deleted > 0 {
            return Ok(deleted);
        }
    }
    if size(connection)? > retention.max_size {
        for which in [successful, all] {
            let deleted = delete(connection, which, before(MIN_AGE))?;
            if deleted > 0 {
                return Ok(deleted);
            }
        }
    }
    Ok(0)
}

/// Deletes the oldest runs that began before a time.
fn delete(connection: &Connection, which: &str, before_ms: i64) -> rusqlite::Result<usize> {
    let sql = format!(
        "DELETE FROM runs WHERE id IN (
             SELECT id FROM runs WHERE {which} started_at_ms < ?1
                 AND entry NOT IN (SELECT entry FROM starts) AND entry NOT IN (SELECT entry FROM outbox)
             ORDER BY started_at_ms LIMIT ?2)"
    );
    connection.prepare_cached(&sql)?.execute(params![before_ms, STEP])
}

/// Returns the number of bytes that the content of the file takes.
fn size(connection: &Connection) -> rusqlite::Result<u64> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
    Ok((pragma("page_count")? - pragma("freelist_count")?) * pragma("page_size")?)
}
