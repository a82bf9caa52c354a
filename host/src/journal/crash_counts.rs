//! The counts of crashes: how many daemons died while they ran an entry or a task.

use std::collections::BTreeSet;

use loopabull_model::{EntryId, Run, TaskName};
use rusqlite::Connection;

use super::record::{CrashCounts, Crashed, InterruptedRun};
use super::rows::{self, checked};

/// Counts the crash of the last daemon for the entries and the tasks that were running. Returns these tasks and all counts.
/// An attempt whose run was recorded had ended: only its mark was left.
pub(super) fn count(
    connection: &Connection,
    running: &[InterruptedRun],
) -> rusqlite::Result<(Vec<Crashed>, CrashCounts)> {
    let mut tasks = BTreeSet::new();
    for InterruptedRun { entry, task, attempt } in running {
        let ended = rows::ended(connection, entry)?;
        if ended.is_some_and(|ended| ended.outcome.is_success() || ended.attempt >= *attempt) {
            continue;
        }
        connection.execute(
            "INSERT INTO crashed_entries VALUES (?1, 1)
             ON CONFLICT (entry) DO UPDATE SET crashes = crashes + 1",
            [entry.as_str()],
        )?;
        tasks.insert(task);
    }
    let count = |task: &TaskName| {
        let count = connection.query_row(
            "INSERT INTO crashed_tasks VALUES (?1, 1)
             ON CONFLICT (task) DO UPDATE SET crashes = crashes + 1 RETURNING crashes",
            [task.as_str()],
            |row| row.get(0),
        )?;
        Ok(Crashed { task: task.clone(), count })
    };
    let crashed = tasks.into_iter().map(count).collect::<rusqlite::Result<_>>()?;
    Ok((crashed, load(connection)?))
}

fn load(connection: &Connection) -> rusqlite::Result<CrashCounts> {
    let entries = connection
        .prepare("SELECT entry, crashes FROM crashed_entries")?
        .query_map([], |row| Ok((EntryId::new(row.get::<_, String>(0)?), row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let tasks = connection
        .prepare("SELECT task FROM crashed_tasks")?
        .query_map([], |row| checked(row, "task"))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(CrashCounts { entries, tasks })
}

/// Ends the count of an entry that had its attempt, and that of a task that succeeded.
pub(super) fn end(connection: &Connection, run: &Run) -> rusqlite::Result<()> {
    if run.outcome.is_attempt() {
        connection.execute("DELETE FROM crashed_entries WHERE entry = ?1", [run.entry.as_str()])?;
    }
    if run.outcome.is_success() {
        connection.execute("DELETE FROM crashed_tasks WHERE task = ?1", [run.task.as_str()])?;
    }
    Ok(())
}
