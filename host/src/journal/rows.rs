//! Reads and writes the rows of runs.

use std::time::Duration;

use loopabull_model::{EntryId, Message, Outcome, Output, Run, RunId};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::record::Ended;

/// Maximum size of a message that is stored with its run, in bytes of JSON.
const MAX_MESSAGE_SIZE: usize = 256 << 10;

/// Returns the run of an entry that counts as an attempt: the successful one, or else the last one. After a run that does
/// not count (`Outcome::is_attempt`), the attempt may run again.
pub(super) fn ended(connection: &Connection, entry: &EntryId) -> rusqlite::Result<Option<Ended>> {
    // Without the `+`, SQLite would plan the query anew for each entry.
    connection
        .prepare_cached(
            "SELECT attempt, outcome, output FROM runs WHERE entry = +?1 AND outcome_name NOT IN ('cancelled', 'conflict', 'shortage', 'unavailable')
             ORDER BY outcome_name = 'success' DESC, attempt DESC LIMIT 1",
        )?
        .query_row([entry.as_str()], |row| {
            let (attempt, outcome) = (row.get("attempt")?, from_json(row, "outcome")?);
            Ok(Ended { attempt, outcome, output: from_json::<Output>(row, "output")?.text })
        })
        .optional()
}

/// Returns whether an entry has runs.
pub(crate) fn has_runs(connection: &Connection, entry: &EntryId) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM runs WHERE entry = +?1")?.exists([entry.as_str()])
}

/// Inserts a run.
pub(super) fn insert(
    connection: &Connection,
    run: &Run,
    message: &Message,
) -> rusqlite::Result<usize> {
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

/// Reads the message of a run, if it is stored.
pub(super) fn stored_message(row: &Row<'_>) -> rusqlite::Result<Option<Message>> {
    let stored: Option<String> = row.get("message")?;
    stored.map(|text| serde_json::from_str(&text).map_err(unreadable)).transpose()
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
