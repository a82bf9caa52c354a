//! Fills a journal, to measure how its size affects the host.

use std::fs::File;
use std::path::Path;

use anyhow::{Result, ensure};
use rusqlite::{Connection, params};

/// The number of rows in one transaction.
const GROUP: u32 = 50_000;

/// Copies a run of a journal. The copies have other ids, entries, messages and times, and fifty tasks.
pub(crate) fn fill(journal: &Path, runs: u32) -> Result<()> {
    let file = Connection::open(journal)?;
    file.pragma_update(None, "synchronous", "OFF")?;
    file.execute_batch("CREATE TEMP TABLE sample AS SELECT * FROM runs LIMIT 1")?;
    let count: u32 = file.query_row("SELECT count(*) FROM sample", [], |row| row.get(0))?;
    ensure!(count == 1, "the journal has no runs");
    for first in (0..runs).step_by(GROUP as usize) {
        // The oldest comes first, as in a real journal.
        file.execute(
            "WITH RECURSIVE numbers (n) AS (SELECT ?1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?2)
             INSERT INTO runs SELECT printf('%032x', n), printf('%032x', n), printf('filled-%d', n), topic,
                 printf('task-%d', n % 50), kind, attempt, worker, started_at_ms - 1000 * (?3 - n),
                 duration_us, outcome_name, outcome, output, notes, grants, usage, emitted, playbook, message
             FROM numbers, sample",
            params![first, (first + GROUP).min(runs) - 1, runs],
        )?;
    }
    // Otherwise the next sync of anybody would wait for all of it.
    file.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(File::open(journal)?.sync_all()?)
}
