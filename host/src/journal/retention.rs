//! Deletes old runs from the journal, a few at a time, so that workers wait only for moments.
//!
//! The journal recognises an entry that already had its run, if its delivery was not settled. So no run is deleted that
//! ended in the last hour ([`MIN_AGE`]), whose messages wait in the outbox, or whose entry has a count of crashes.

use std::time::Duration;

use rusqlite::{Connection, params};

/// The number of runs that are deleted in one change.
const STEP: u32 = 50;
/// The time since the end of a run in which it is not deleted, even if the journal is too large. A delivery that was not
/// settled comes back before, unless its host or its broker is away.
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

/// Sums up about how many bytes the entries of the embedded queue take: 300 beside the message, with the indexes. A row that
/// does not fit into a page twice has whole pages.
const SUM_OF_ENTRIES: &str = "
    SELECT coalesce(sum(iif(bytes > 1900, (bytes + 4095) / 4096 * 4096, bytes)), 0)
    FROM (SELECT 300 + octet_length(message) + octet_length(output) AS bytes FROM entries)";

/// Returns about how many bytes of the file are the embedded queue. Returns 0 without counting if the whole file is not
/// larger than `max_size`.
pub(super) fn bytes_of_queue(connection: &Connection, max_size: u64) -> rusqlite::Result<u64> {
    if size(connection)? <= max_size {
        return Ok(0);
    }
    connection.query_row(SUM_OF_ENTRIES, [], |row| row.get(0))
}

/// Deletes up to [`STEP`] runs that need not be kept. Returns their number. `queue` is the size of the embedded queue, in
/// bytes.
pub(super) fn delete_some(
    connection: &Connection,
    retention: Retention,
    queue: u64,
    now_ms: i64,
) -> rusqlite::Result<usize> {
    let before = |age: Duration| {
        let age = i64::try_from(age.max(MIN_AGE).as_millis()).unwrap_or(i64::MAX);
        now_ms.saturating_sub(age)
    };
    let mut deletions = vec![
        // Each condition is a range of the index `runs_of_outcome`.
        ("outcome_name = 'success'", "", retention.keep),
        ("outcome_name < 'success'", "", retention.keep_failed),
        ("outcome_name > 'success'", "", retention.keep_failed),
    ];
    if size(connection)?.saturating_sub(queue) > retention.max_size {
        deletions.push(("outcome_name = 'success'", "ORDER BY started_at_ms", MIN_AGE));
        deletions.push(("true", "ORDER BY started_at_ms", MIN_AGE));
    }
    for (which, order, age) in deletions {
        let sql = format!(
            "DELETE FROM runs WHERE id IN (
                 SELECT id FROM runs
                 WHERE {which} AND started_at_ms < ?1 AND started_at_ms + duration_us / 1000 < ?1
                     AND entry NOT IN (SELECT entry FROM crashed_entries)
                     AND entry NOT IN (SELECT entry FROM outbox)
                 {order} LIMIT ?2)"
        );
        let deleted = connection.prepare_cached(&sql)?.execute(params![before(age), STEP])?;
        if deleted > 0 {
            return Ok(deleted);
        }
    }
    Ok(0)
}

/// Returns the number of bytes that the content of the file takes.
fn size(connection: &Connection) -> rusqlite::Result<u64> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
    Ok((pragma("page_count")? - pragma("freelist_count")?) * pragma("page_size")?)
}
