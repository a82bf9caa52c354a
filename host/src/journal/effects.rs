//! The effects of a run: the state changes of its task, and the messages that it emitted, which are
//! stored in the outbox. Both are stored in the transaction that records the run.

use loopabull_model::{Counted, EntryId, Exceeded, Message, Outcome, Run, StateChanges, TaskName};
use rusqlite::{Connection, OptionalExtension, params};

use super::crash_counts;
use super::record::{AfterQueues, Record};
use super::rows::{from_json, insert, json};

/// Records a run with its effects. After a conflict or above a limit, records the run without
/// effects, and with the conflict or the limit as its outcome, which is returned.
pub(super) fn record(
    connection: &Connection,
    record: &Record,
) -> rusqlite::Result<Option<Outcome>> {
    let Record { run, message, sends, state, ends_count, queue } = record;
    let has_effects = !(sends.is_empty() && state.written.is_empty());
    // A run without effects is not checked for a conflict: it changes nothing, and its result is
    // valid for the state that it had read.
    let changed = match run.outcome.is_success() && has_effects {
        true => conflict_or_limit(connection, &run.task, state)?,
        false => None,
    };
    let changed_run = changed.as_ref().map(|outcome| Run {
        outcome: outcome.clone(),
        emitted: Vec::new(),
        ..run.clone()
    });
    let run = changed_run.as_ref().unwrap_or(run);
    if run.outcome.is_success() {
        write(connection, &run.task, state)?;
        for entry in queue.iter().flat_map(|queue| &queue.entries) {
            loopabull_queue::insert(connection, entry)?;
        }
        let is_sent = queue.as_ref().is_some_and(|queue| queue.after == AfterQueues::Done);
        for (place, message) in sends.iter().enumerate().filter(|_| !is_sent) {
            connection
                .prepare_cached("INSERT OR IGNORE INTO outbox VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![run.entry.as_str(), place, json(message), queue.is_some()])?;
        }
    }
    insert(connection, run, message)?;
    if *ends_count {
        crash_counts::end(connection, run)?;
    }
    if let Some(queue) = queue.as_ref().filter(|_| changed.is_none()) {
        queue.settlement.carry_out(connection)?;
    }
    Ok(changed)
}

/// Returns the value of a key in the state of a task.
pub(super) fn state(
    connection: &Connection,
    task: &TaskName,
    key: &str,
) -> rusqlite::Result<Option<Vec<u8>>> {
    connection
        .prepare_cached("SELECT value FROM state WHERE task = ?1 AND key = ?2")?
        .query_row([task.as_str(), key], |row| row.get(0))
        .optional()
}

/// Returns the emitted messages of an entry that are not in the queues yet.
pub(super) fn outbox(connection: &Connection, entry: &EntryId) -> rusqlite::Result<Vec<Message>> {
    connection
        .prepare("SELECT message FROM outbox WHERE entry = ?1 AND queued = 0 ORDER BY place")?
        .query_map([entry.as_str()], |row| from_json(row, "message"))?
        .collect()
}

/// Returns up to 100 messages that are in the queues and not on the bus yet.
pub(super) fn awaiting_bus(
    connection: &Connection,
) -> rusqlite::Result<Vec<(EntryId, u64, Message)>> {
    connection
        .prepare("SELECT * FROM outbox WHERE queued = 1 ORDER BY entry, place LIMIT 100")?
        .query_map([], |row| {
            let entry = EntryId::new(row.get::<_, String>("entry")?);
            Ok((entry, row.get("place")?, from_json(row, "message")?))
        })?
        .collect()
}

/// Returns the entries with emitted messages that are not in the queues yet.
pub(super) fn unsent(connection: &Connection) -> rusqlite::Result<Vec<EntryId>> {
    connection
        .prepare("SELECT DISTINCT entry FROM outbox WHERE queued = 0 ORDER BY entry")?
        .query_map([], |row| Ok(EntryId::new(row.get::<_, String>(0)?)))?
        .collect()
}

/// Returns a conflict or an exceeded limit as an outcome, or none if the effects can be recorded.
fn conflict_or_limit(
    connection: &Connection,
    task: &TaskName,
    changes: &StateChanges,
) -> rusqlite::Result<Option<Outcome>> {
    for (key, found) in &changes.read {
        if state(connection, task, key)? != *found {
            return Ok(Some(Outcome::Conflict { key: key.as_str().into() }));
        }
    }
    if changes.written.is_empty() {
        return Ok(None);
    }
    let mut wanted = connection
        .prepare_cached(
            "SELECT coalesce(sum(length(CAST(key AS BLOB)) + length(value)), 0) FROM state
             WHERE task = ?1",
        )?
        .query_row([task.as_str()], |row| row.get::<_, u64>(0))?;
    for (key, value) in &changes.written {
        let size = |value: &Vec<u8>| (key.len() + value.len()) as u64;
        wanted -= state(connection, task, key)?.as_ref().map_or(0, size);
        wanted += value.as_ref().map_or(0, size);
    }
    let allowed = changes.allowed;
    let exceeded = Exceeded::Count { what: Counted::StateBytes, allowed, wanted };
    Ok((wanted > allowed).then_some(Outcome::Limit { exceeded }))
}

fn write(connection: &Connection, task: &TaskName, changes: &StateChanges) -> rusqlite::Result<()> {
    for (key, value) in &changes.written {
        match value {
            Some(value) => connection
                .prepare_cached("INSERT OR REPLACE INTO state VALUES (?1, ?2, ?3)")?
                .execute(params![task.as_str(), key, value])?,
            None => connection
                .prepare_cached("DELETE FROM state WHERE task = ?1 AND key = ?2")?
                .execute([task.as_str(), key])?,
        };
    }
    Ok(())
}
