//! Finds an entry in the table.

use std::collections::BTreeSet;
use std::time::Duration;

use loopabull_model::{EntryId, QueueName};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::clock::steady_ms;
use crate::whereabouts::{EntryState, Whereabouts};

/// Selects the new entries before a place in a queue.
const AHEAD: &str = "
    SELECT id FROM entries INDEXED BY new
    WHERE queue = +?1 AND state = 'waiting' AND due_ms = queued_ms AND (due_ms, id) < (?2, ?3)";

/// Returns where an entry is. `claimed` returns the claimed rows of a queue.
pub(super) fn find(
    connection: &Connection,
    entry: &EntryId,
    claimed: impl Fn(&QueueName) -> BTreeSet<i64>,
) -> rusqlite::Result<Option<Whereabouts>> {
    let find = |row: &Row<'_>| {
        let [id, due_ms, queued_ms]: [i64; 3] =
            [row.get("id")?, row.get("due_ms")?, row.get("queued_ms")?];
        let queue: String = row.get("queue")?;
        let state: String = row.get("state")?;
        let left = due_ms.saturating_sub(steady_ms());
        let queue = QueueName::try_from(queue).unwrap_or_default();
        let claimed = claimed(&queue);
        let state = match state.as_str() {
            "dead" => EntryState::Dead { reason: row.get("reason")? },
            "held" => EntryState::Held,
            _ if claimed.contains(&id) => EntryState::Claimed,
            _ if due_ms != queued_ms && left > 0 => {
                let left = u64::try_from(left).unwrap_or_default();
                EntryState::Delayed { left: Duration::from_millis(left) }
            }
            _ if due_ms != queued_ms => EntryState::Due,
            _ => {
                let mut statement = connection.prepare_cached(AHEAD)?;
                let place = params![queue.as_str(), due_ms, id];
                let rows = statement.query_map(place, |row| row.get::<_, i64>(0))?;
                let waits = |row: &rusqlite::Result<i64>| {
                    !row.as_ref().is_ok_and(|row| claimed.contains(row))
                };
                let limit = usize::try_from(EntryState::MAX_AHEAD).unwrap_or(usize::MAX);
                let rows: Vec<i64> = rows.filter(waits).take(limit).collect::<Result<_, _>>()?;
                EntryState::Waiting { ahead: rows.len() as u64 }
            }
        };
        Ok(Whereabouts { queue, state })
    };
    connection
        .prepare_cached(
            "SELECT id, queue, state, due_ms, queued_ms, reason FROM entries WHERE entry = +?1",
        )?
        .query_row([entry.as_str()], find)
        .optional()
}
