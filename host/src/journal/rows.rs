//! Reads and writes the rows of runs, and decides whether an attempt may run.

use std::time::Duration;

use loopabull_model::{EntryId, Message, Outcome, Output, RetryPolicy, Run, RunId, TaskName};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::record::{Begun, Filter};

/// Maximum size of a message that is stored with its run, in bytes of JSON.
const MAX_MESSAGE_SIZE: usize = 256 << 10;

/// Number of daemons that must die during runs of an entry before the entry is a suspect. The task
/// of a suspect may be the cause of these deaths. A suspect is delayed, and runs only while no
/// other suspect runs. So if the daemon dies again, at most one suspect can be the cause.
const SUSPECT_CRASHES: u32 = 2;

/// Records the beginning of an attempt. Returns whether the attempt may run.
pub(super) fn begin(
    connection: &Connection,
    entry: &EntryId,
    task: &TaskName,
    attempt: u32,
) -> rusqlite::Result<Begun> {
    // If a run does not count as an attempt (`Outcome::is_attempt`), the attempt may run again.
    let ended = connection
        .prepare_cached(
            "SELECT attempt, outcome, output FROM runs WHERE entry = ?1 AND outcome_name NOT IN ('cancelled', 'conflict', 'shortage', 'unavailable')
             ORDER BY outcome_name = 'success' DESC, attempt DESC LIMIT 1",
        )?
        .query_row([entry.as_str()], |row| {
            let outcome = from_json::<Outcome>(row, "outcome")?;
            Ok((row.get::<_, u32>("attempt")?, outcome, from_json::<Output>(row, "output")?))
        })
        .optional()?;
    match ended {
        Some((_, outcome, _)) if outcome.is_success() => return Ok(Begun::Succeeded),
        Some((ended, outcome, output)) if ended >= attempt => {
            return Ok(Begun::Ended { outcome, attempt: ended, output: output.text });
        }
        _ => (),
    }
    let earlier = connection
        .prepare_cached("SELECT running, crashes, waited FROM starts WHERE entry = ?1")?
        .query_row([entry.as_str()], |row| {
            Ok((row.get::<_, bool>(0)?, row.get::<_, u32>(1)?, row.get::<_, bool>(2)?))
        })
        .optional()?;
    let (crashes, waited) = match earlier {
        None => (0, false),
        // This daemon began the attempt and could not record its run. That counts as a crash.
        Some((true, crashes, _)) => (crashes.saturating_add(1), false),
        Some((false, crashes, waited)) => (crashes, waited),
    };
    // An entry with `MAX_CRASHES` or more crashes is not delayed, because its attempt is refused
    // later.
    let is_suspect = (SUSPECT_CRASHES..RetryPolicy::MAX_CRASHES).contains(&crashes);
    let waits = is_suspect && (!waited || runs_a_suspect(connection)?);
    connection
        .prepare_cached("INSERT OR REPLACE INTO starts VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![entry.as_str(), task.as_str(), !waits, crashes, waits || waited])?;
    Ok(if waits { Begun::Wait { crashes } } else { Begun::Run { crashes } })
}

/// Records that an entry is not running any more, and that its run does not count as an attempt. If the
/// daemon dies later, that is not a crash of the entry. The earlier crashes still count.
pub(super) fn abandon(connection: &Connection, entry: &EntryId) -> rusqlite::Result<usize> {
    connection
        .prepare_cached("DELETE FROM starts WHERE entry = ?1 AND crashes = 0")?
        .execute([entry.as_str()])?;
    connection
        .prepare_cached("UPDATE starts SET running = 0 WHERE entry = ?1")?
        .execute([entry.as_str()])
}

/// Returns whether a suspect is running. The entry that is about to begin is not marked as running
/// yet, so it is not counted.
fn runs_a_suspect(connection: &Connection) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM starts WHERE running AND crashes >= ?1 AND crashes < ?2)",
        )?
        .query_row([SUSPECT_CRASHES, RetryPolicy::MAX_CRASHES], |row| row.get(0))
}

/// Inserts a run, and deletes the record of its beginning. A successful run also resets the number
/// of crashes of its task.
pub(super) fn insert(
    connection: &Connection,
    run: &Run,
    message: &Message,
) -> rusqlite::Result<usize> {
    if run.outcome.is_attempt() {
        connection
            .prepare_cached("DELETE FROM starts WHERE entry = ?1")?
            .execute([run.entry.as_str()])?;
    } else {
        abandon(connection, &run.entry)?;
    }
    if run.outcome.is_success() {
        connection
            .prepare_cached("DELETE FROM crashes WHERE task = ?1")?
            .execute([run.task.as_str()])?;
    }
    connection
        .prepare_cached("INSERT INTO runs VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19)")?
        .execute(params![
            run.id.as_str(),
            run.entry.as_str(),
            run.message_id.as_str(),
            run.topic.as_str(),
            run.task.as_str(),
            json(&run.kind),
            run.attempt,
            run.worker,
            run.started_at_ms,
            u64::try_from(run.duration.as_micros()).unwrap_or(u64::MAX),
            run.outcome.name(),
            json(&run.outcome),
            json(&run.output),
            json(&run.notes),
            json(&run.grants),
            json(&run.usage),
            json(&run.emitted),
            json(&run.playbook),
            // A cancelled or conflicting run is repeated, and the message is stored with the
            // repeated run.
            Some(json(message))
                .filter(|message| message.len() <= MAX_MESSAGE_SIZE && run.outcome.is_attempt()),
        ])
}

/// Returns the query for the runs that match a filter, newest first. Its parameters are the limit, the task, the outcome
/// and the message.
pub(super) fn list(filter: &Filter) -> String {
    // An index on one column serves a query only if the condition on it is alone: failures are rarer than successes, and
    // a message has few runs. The `+` keeps SQLite from the other indexes (<https://sqlite.org/optoverview.html>).
    let by_message = filter.message.is_some();
    let by_outcome = !by_message && filter.outcome.as_deref().is_some_and(|name| name != "success");
    let by_task = !by_message && !by_outcome && filter.task.is_some();
    let conditions = [
        ("task", 2, filter.task.is_some(), by_task),
        ("outcome_name", 3, filter.outcome.is_some(), by_outcome || !by_task && !by_message),
        ("message_id", 4, by_message, true),
    ];
    let conditions = conditions.map(|(column, parameter, is_given, has_index)| {
        let column = if has_index { column.to_owned() } else { format!("+{column}") };
        // SQLite needs each parameter in the query.
        if is_given { format!("{column} = ?{parameter}") } else { format!("?{parameter} IS NULL") }
    });
    format!(
        "SELECT * FROM runs WHERE {} ORDER BY started_at_ms DESC, id LIMIT ?1",
        conditions.join(" AND ")
    )
}

/// Reads a run from a row.
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Run> {
    Ok(Run {
        id: RunId::new(row.get::<_, String>("id")?),
        entry: EntryId::new(row.get::<_, String>("entry")?),
        message_id: checked(row, "message_id")?,
        topic: checked(row, "topic")?,
        task: checked(row, "task")?,
        kind: from_json(row, "kind")?,
        attempt: row.get("attempt")?,
        worker: row.get("worker")?,
        started_at_ms: row.get("started_at_ms")?,
        duration: Duration::from_micros(row.get("duration_us")?),
        outcome: from_json::<Outcome>(row, "outcome")?,
        output: from_json(row, "output")?,
        notes: from_json(row, "notes")?,
        grants: from_json(row, "grants")?,
        usage: from_json(row, "usage")?,
        emitted: from_json(row, "emitted")?,
        playbook: from_json(row, "playbook")?,
    })
}

/// Serializes a value to JSON for a column.
pub(super) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("rows contain only JSON types")
}

/// Deserializes a JSON column.
pub(super) fn from_json<T: serde::de::DeserializeOwned>(
    row: &Row<'_>,
    column: &str,
) -> rusqlite::Result<T> {
    serde_json::from_str(&row.get::<_, String>(column)?).map_err(unreadable)
}

/// Reads a text column and validates the text as type `T`.
pub(super) fn checked<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<T>
where
    T: TryFrom<String>,
    T::Error: std::error::Error + Send + Sync + 'static,
{
    T::try_from(row.get(column)?).map_err(unreadable)
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error))
}
