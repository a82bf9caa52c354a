//! The rows of runs, and the decision whether an attempt may begin.

use std::time::Duration;

use loopabull_model::{EntryId, Message, Outcome, Output, RetryPolicy, Run, RunId, TaskName};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::record::Begun;

/// The maximum size of a message that is kept with its run, in bytes of its JSON.
const MAX_MESSAGE_SIZE: usize = 256 << 10;

/// Records that an attempt begins, or returns why it must not.
pub(super) fn begin(
    connection: &Connection,
    entry: &EntryId,
    task: &TaskName,
    attempt: u32,
) -> rusqlite::Result<Begun> {
    // A run that was cancelled or that conflicted is requeued uncounted: it is not an attempt.
    let ended = connection
        .prepare_cached(
            "SELECT attempt, outcome, output FROM runs WHERE entry = ?1 AND outcome_name NOT IN ('cancelled', 'conflict')
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
        // This daemon began the attempt and could not record its run.
        Some((true, crashes, _)) => (crashes.saturating_add(1), false),
        Some((false, crashes, waited)) => (crashes, waited),
    };
    // An entry with more deaths is refused and does not have to wait for that.
    let waits = (2..RetryPolicy::MAX_CRASHES).contains(&crashes) && !waited;
    connection
        .prepare_cached("INSERT OR REPLACE INTO starts VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![entry.as_str(), task.as_str(), !waits, crashes, waits])?;
    Ok(if waits { Begun::Wait { crashes } } else { Begun::Run { crashes } })
}

/// Inserts a run, and removes its beginning.
pub(super) fn insert(
    connection: &Connection,
    run: &Run,
    message: &Message,
) -> rusqlite::Result<usize> {
    connection
        .prepare_cached("DELETE FROM starts WHERE entry = ?1")?
        .execute([run.entry.as_str()])?;
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
            // A run that conflicted is repeated, and the repetition keeps the message.
            Some(json(message))
                .filter(|message| message.len() <= MAX_MESSAGE_SIZE && run.outcome.is_attempt()),
        ])
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

/// Returns a value as JSON for a column.
pub(super) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("a run is made of JSON types")
}

/// Reads a column that holds JSON.
pub(super) fn from_json<T: serde::de::DeserializeOwned>(
    row: &Row<'_>,
    column: &str,
) -> rusqlite::Result<T> {
    serde_json::from_str(&row.get::<_, String>(column)?).map_err(unreadable)
}

/// Reads a column of a type that checks its text.
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
