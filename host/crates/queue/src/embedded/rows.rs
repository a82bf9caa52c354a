//! The table of the embedded queues: its schema, and the SQL statements that read and change its rows.
//!
//! The crate `loopabull-store` runs these functions. It runs functions that change rows in a transaction.

use std::collections::VecDeque;

use loopabull_model::{Entry, EntryId, Reason, Settlement, TaskName};
use loopabull_store::Schema;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use crate::clock::{now_ms, steady_ms};
use crate::dead_letter::{self, DeadLetter, DeathRecord, Verdict};
use crate::delivered::{DELIVERY_LIMIT, DeliveredEntry};

pub(super) const SCHEMA: Schema = Schema { oldest: 3, steps: &[TABLES] };

const TABLES: &str = "
    CREATE TABLE entries (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        queue TEXT NOT NULL,
        entry TEXT NOT NULL UNIQUE,
        task TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('waiting', 'claimed', 'held', 'dead')),
        attempts INTEGER NOT NULL DEFAULT 0,  -- settled attempts
        claims INTEGER NOT NULL DEFAULT 0,    -- unsettled claims since the last settled attempt
        queued_ms INTEGER NOT NULL,
        due_ms INTEGER NOT NULL,              -- a retry waits until then; defines the order
        delayed_ms INTEGER NOT NULL DEFAULT 0, -- when the wait of a retry began
        died_ms INTEGER NOT NULL DEFAULT 0,
        reason TEXT NOT NULL DEFAULT '',      -- why it is a dead letter
        output TEXT NOT NULL DEFAULT '',      -- of its last run, for a dead letter
        history TEXT NOT NULL DEFAULT '[]',   -- its earlier deaths, as JSON
        message TEXT NOT NULL                 -- the last column, so that the others are close together
    ) STRICT;
    CREATE INDEX new ON entries (queue, due_ms, id)
        WHERE state = 'waiting' AND due_ms = queued_ms;
    CREATE INDEX retries ON entries (queue, due_ms, id)
        WHERE state = 'waiting' AND due_ms <> queued_ms;
    CREATE INDEX held ON entries (queue, task, due_ms, id) WHERE state = 'held';
    CREATE INDEX by_state ON entries (queue, state, queued_ms);";

/// Selects the retry that has been due for the longest time. The query names its index. Without the name, SQLite
/// would use the index `by_state` and sort all waiting entries for each claim. Without the `+`, SQLite would plan each
/// query of this kind anew for each value (seen in 3.54): the value might matter for the order.
const NEXT_RETRY: &str = "
    SELECT id FROM entries INDEXED BY retries
    WHERE queue = +?1 AND state = 'waiting' AND due_ms <> queued_ms AND due_ms <= ?2
    ORDER BY due_ms, id LIMIT 1";
/// Selects the first entry that has no delay. The query does not compare its time with the clock, so that the
/// entry is delivered even if the clock was set back.
const NEXT_NEW: &str = "
    SELECT id FROM entries INDEXED BY new
    WHERE queue = +?1 AND state = 'waiting' AND due_ms = queued_ms ORDER BY due_ms, id LIMIT 1";
/// Selects the time of the last entry that has no delay.
const LAST_NEW: &str = "
    SELECT due_ms FROM entries INDEXED BY new
    WHERE queue = +?1 AND state = 'waiting' AND due_ms = queued_ms ORDER BY due_ms DESC, id DESC LIMIT 1";
const CLAIM: &str = "
    UPDATE entries SET state = 'claimed', claims = claims + 1 WHERE id = ?1
    RETURNING id, queue, entry, task, message, attempts, claims, queued_ms, history,
        due_ms <> queued_ms AS is_retry";

/// An entry that was claimed.
#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) row: i64,
    pub(super) delivered: DeliveredEntry,
    /// Whether the entry had waited for this attempt.
    pub(super) is_retry: bool,
}

/// Inserts an entry, unless an entry with the same id exists.
pub(super) fn insert(connection: &Connection, entry: &Entry) -> rusqlite::Result<usize> {
    let message = serde_json::to_string(&entry.message).expect("a message is always valid JSON");
    let sql =
        "INSERT OR IGNORE INTO entries (queue, entry, task, message, state, queued_ms, due_ms)
               VALUES (?1, ?2, ?3, ?4, 'waiting', ?5, ?5)";
    let (queue, id, task) = (entry.queue.as_str(), entry.id.as_str(), entry.task.as_str());
    let queued_ms = end_of(connection, queue)?;
    connection.prepare_cached(sql)?.execute(params![queue, id, task, message, queued_ms])
}

/// Returns the time of an entry that is published now. It is not before that of the last waiting entry, so that the
/// order is that of publishing even if the clock was set back.
fn end_of(connection: &Connection, queue: &str) -> rusqlite::Result<i64> {
    let mut statement = connection.prepare_cached(LAST_NEW)?;
    let last: Option<i64> = statement.query_row([queue], |row| row.get(0)).optional()?;
    Ok(now_ms().max(last.unwrap_or(0)))
}

/// Size of the messages from which no further entry is claimed in the same change, in bytes of their bodies.
const MAX_CLAIMED_BYTES: usize = 1 << 20;

/// Claims the next entries of a queue, up to `count`: a due retry and another entry by turns, which a retry begins unless
/// `is_new_first`.
pub(super) fn claim(
    connection: &Connection,
    queue: &str,
    mut is_new_first: bool,
    count: usize,
) -> rusqlite::Result<VecDeque<Claimed>> {
    let (mut claimed, mut bytes) = (VecDeque::new(), 0);
    while claimed.len() < count
        && bytes < MAX_CLAIMED_BYTES
        && let Some(next) = claim_next(connection, queue, is_new_first)?
    {
        is_new_first = next.is_retry;
        bytes += next.delivered.entry.message.body.as_str().len();
        claimed.push_back(next);
    }
    Ok(claimed)
}

/// Claims the next entry of a queue: a due retry before other entries, or after them if `is_new_first`. An entry
/// that cannot be read or that exceeds the delivery limit becomes a dead letter, and the following entry is
/// claimed.
///
/// Usually the host counts the runs that a crash interrupted, and dead-letters an entry that has
/// too many of them. The delivery limit is for the case that the host cannot count them. RabbitMQ has the
/// same limit.
fn claim_next(
    connection: &Connection,
    queue: &str,
    is_new_first: bool,
) -> rusqlite::Result<Option<Claimed>> {
    loop {
        let Some(row) = next(connection, queue, is_new_first)? else { return Ok(None) };
        let mut statement = connection.prepare_cached(CLAIM)?;
        let (claims, attempts, is_retry, delivered): (u32, _, _, _) =
            statement.query_row([row], |row| {
                let numbers = (row.get("claims")?, row.get("attempts")?, row.get("is_retry")?);
                Ok((numbers.0, numbers.1, numbers.2, delivered_entry(row)))
            })?;
        let reason = match delivered {
            Ok(delivered) if claims <= DELIVERY_LIMIT => {
                return Ok(Some(Claimed { row, delivered, is_retry }));
            }
            Ok(_) => format!("delivered {DELIVERY_LIMIT} times and never settled"),
            Err(reason) => reason,
        };
        settle(connection, row, attempts, &Settlement::dead_letter(reason))?;
    }
}

/// Ends claims whose entries were not delivered.
pub(super) fn give_back(connection: &Connection, rows: &[i64]) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "UPDATE entries SET state = 'waiting', claims = claims - 1 WHERE id = ?1 AND state = 'claimed'",
    )?;
    rows.iter().try_for_each(|row| statement.execute([row]).map(drop))
}

fn next(connection: &Connection, queue: &str, is_new_first: bool) -> rusqlite::Result<Option<i64>> {
    let retry = || {
        let mut statement = connection.prepare_cached(NEXT_RETRY)?;
        statement.query_row(params![queue, steady_ms()], |row| row.get(0)).optional()
    };
    let new = || {
        let mut statement = connection.prepare_cached(NEXT_NEW)?;
        statement.query_row([queue], |row| row.get(0)).optional()
    };
    let first = if is_new_first { new()? } else { retry()? };
    match first {
        Some(id) => Ok(Some(id)),
        None if is_new_first => retry(),
        None => new(),
    }
}

/// Returns whether an entry of a queue can be claimed.
pub(super) fn is_waiting(connection: &Connection, queue: &str) -> rusqlite::Result<bool> {
    next(connection, queue, true).map(|row| row.is_some())
}

/// Requeues the entries that an ended process had claimed. If the clock was set back since a delay began, the
/// delay begins again.
pub(super) fn take_over(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("UPDATE entries SET state = 'waiting' WHERE state = 'claimed'", [])?;
    connection.execute(
        "UPDATE entries SET due_ms = ?1 + (due_ms - delayed_ms), delayed_ms = ?1
         WHERE due_ms <> queued_ms AND delayed_ms > ?1",
        [steady_ms()],
    )?;
    Ok(())
}

/// Ends the delays of all retries of a queue. Returns their number. The time of the daemon that waits may differ from
/// ours, so the delays end in the distant past.
pub(super) fn end_delays(connection: &Connection, queue: &str) -> rusqlite::Result<usize> {
    connection.execute(
        "UPDATE entries SET due_ms = 0
         WHERE queue = +?1 AND state = 'waiting' AND due_ms <> queued_ms AND due_ms > 0",
        [queue],
    )
}

/// Returns all pairs of a queue and a task that have held entries.
pub(super) fn held(connection: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    connection
        .prepare_cached(
            "SELECT DISTINCT queue, task FROM entries INDEXED BY held WHERE state = 'held'",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// Releases the first `limit` held entries of a task, or all if `limit` is -1. Each entry keeps its position in
/// the queue.
pub(super) fn release(
    connection: &Connection,
    queue: &str,
    task: &str,
    limit: i64,
) -> rusqlite::Result<usize> {
    connection.execute(
        "UPDATE entries SET state = 'waiting' WHERE id IN (
             SELECT id FROM entries INDEXED BY held WHERE queue = ?1 AND task = ?2 AND state = 'held'
             ORDER BY due_ms, id LIMIT ?3)",
        params![queue, task, limit],
    )
}

/// Settles a claim. `attempts` is the entry's new count of attempts. Returns the number of changed rows: 1,
/// or 0 if the row is not claimed any more.
pub(super) fn settle(
    connection: &Connection,
    id: i64,
    attempts: u32,
    settlement: &Settlement,
) -> rusqlite::Result<usize> {
    let execute = |set: &str, parameters: &[&dyn ToSql]| {
        let sql = format!(
            "UPDATE entries SET {set}, attempts = ?2, claims = 0
             WHERE id = ?1 AND state = 'claimed'"
        );
        connection.prepare_cached(&sql)?.execute(parameters)
    };
    match settlement {
        Settlement::Ack => connection
            .prepare_cached("DELETE FROM entries WHERE id = ?1 AND state = 'claimed'")?
            .execute([id]),
        Settlement::DeadLetter { reason, output } => execute(
            "state = 'dead', reason = ?3, output = ?4, died_ms = ?5",
            &[&id, &attempts, &reason.as_str(), &dead_letter::tail(output), &now_ms()],
        ),
        Settlement::Hold => execute("state = 'held'", &[&id, &attempts]),
        // An entry that is requeued without a delay keeps its position in the queue.
        Settlement::Requeue { after } if after.is_zero() => {
            execute("state = 'waiting'", &[&id, &attempts])
        }
        Settlement::Retry { after } | Settlement::Requeue { after } => {
            let delay = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
            let now = steady_ms();
            let due = now.saturating_add(delay);
            execute(
                "state = 'waiting', due_ms = ?3, delayed_ms = ?4",
                &[&id, &attempts, &due, &now],
            )
        }
    }
}

/// Returns up to 200 dead letters of a queue whose row id is greater than `after`, each with its row id.
pub(super) fn dead_letters(
    connection: &Connection,
    queue: &str,
    after: i64,
) -> rusqlite::Result<Vec<(i64, DeadLetter)>> {
    connection
        .prepare(
            "SELECT * FROM entries WHERE queue = ?1 AND state = 'dead' AND id > ?2
             ORDER BY id LIMIT 200",
        )?
        .query_map(params![queue, after], |row| Ok((row.get("id")?, dead_letter(row)?)))?
        .collect()
}

/// Carries out a verdict on a dead letter. Returns the number of changed rows, which is 0 if another process
/// has requeued or dropped the dead letter meanwhile.
pub(super) fn carry_out(
    connection: &Connection,
    id: i64,
    letter: &DeadLetter,
    verdict: Verdict,
) -> rusqlite::Result<usize> {
    let dead = "WHERE id = ?1 AND entry = ?2 AND state = 'dead'";
    let entry = letter.id.as_str();
    match verdict {
        Verdict::Keep => Ok(0),
        Verdict::Drop => {
            connection.execute(&format!("DELETE FROM entries {dead}"), params![id, entry])
        }
        Verdict::Requeue => {
            let history = dead_letter::with_death(letter.history.clone(), letter.death.clone());
            let history =
                serde_json::to_string(&history).expect("death records are always valid JSON");
            let sql = format!(
                "UPDATE entries
                 SET state = 'waiting', entry = ?3, attempts = 0, claims = 0, queued_ms = ?4,
                     due_ms = ?4, delayed_ms = 0, reason = '', output = '', died_ms = 0, history = ?5 {dead}"
            );
            let requeued = letter.id.requeued();
            let queued_ms = end_of(connection, letter.queue.as_str())?;
            connection.execute(&sql, params![id, entry, requeued.as_str(), queued_ms, history])
        }
    }
}

/// Returns the entry in a row, or the reason why the row cannot be read.
fn delivered_entry(row: &Row<'_>) -> Result<DeliveredEntry, String> {
    fn text<T: rusqlite::types::FromSql>(row: &Row<'_>, column: &str) -> Result<T, String> {
        row.get(column).map_err(undecodable)
    }
    let message: String = text(row, "message")?;
    let history: String = text(row, "history")?;
    let queue: String = text(row, "queue")?;
    Ok(DeliveredEntry {
        entry: Entry {
            id: EntryId::new(text::<String>(row, "entry")?),
            queue: queue.try_into().map_err(undecodable)?,
            task: TaskName::try_from(text::<String>(row, "task")?).map_err(undecodable)?,
            message: serde_json::from_str(&message).map_err(undecodable)?,
        },
        attempt: text::<u32>(row, "attempts")?.saturating_add(1),
        queued_at_ms: text(row, "queued_ms")?,
        history: serde_json::from_str(&history).map_err(undecodable)?,
    })
}

fn dead_letter(row: &Row<'_>) -> rusqlite::Result<DeadLetter> {
    let message: String = row.get("message")?;
    let queue: String = row.get("queue")?;
    Ok(DeadLetter {
        id: EntryId::new(row.get::<_, String>("entry")?),
        queue: queue.try_into().unwrap_or_default(),
        task: TaskName::try_from(row.get::<_, String>("task")?).ok(),
        message: serde_json::from_str(&message).map_err(|error| error.to_string()),
        body: message.into_bytes(),
        death: DeathRecord {
            reason: row.get("reason")?,
            attempts: row.get("attempts")?,
            queued_at_ms: row.get("queued_ms")?,
            died_at_ms: row.get("died_ms")?,
        },
        output: row.get("output")?,
        history: serde_json::from_str(&row.get::<_, String>("history")?).unwrap_or_default(),
    })
}

fn undecodable(error: impl std::fmt::Display) -> String {
    let reason = Reason::from(format!("undecodable: {error}"));
    reason.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry was delayed by two minutes, and the clock was set back before the next process started.
    #[test]
    fn a_delay_begins_again_if_the_clock_was_set_back() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(TABLES).unwrap();
        let later = steady_ms() + 2 * 24 * 3600 * 1000;
        let insert = "INSERT INTO entries (queue, entry, task, state, message, queued_ms, due_ms, delayed_ms)
            VALUES ('q', ?1, 't', 'waiting', '', ?2, ?2 + ?3, ?2)";
        connection.execute(insert, params!["a", later, 120_000]).unwrap();
        connection.execute(insert, params!["b", later, 0]).unwrap();
        connection.execute(insert, params!["c", steady_ms() - 1000, 120_000]).unwrap();
        take_over(&connection).unwrap();
        let wait = |entry: &str| {
            let select = "SELECT due_ms - ?2 FROM entries WHERE entry = ?1";
            connection.query_row(select, params![entry, steady_ms()], |row| row.get::<_, i64>(0))
        };
        assert!((100_000..=120_000).contains(&wait("a").unwrap()));
        // A new entry waits for nothing, whatever its time is.
        assert!(wait("b").unwrap() > 120_000);
        assert_eq!(next(&connection, "q", false).unwrap(), Some(2));
        assert!((100_000..=119_000).contains(&wait("c").unwrap()));
        assert_eq!(end_delays(&connection, "q").unwrap(), 2);
        assert_eq!(next(&connection, "q", false).unwrap(), Some(1));
    }

    #[test]
    fn a_claim_does_not_sort_the_waiting_entries() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(TABLES).unwrap();
        let check = |sql: &str, parameters: &[&str], expected: &str| {
            let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let parameters = rusqlite::params_from_iter(parameters);
            let plan: Vec<String> = statement
                .query_map(parameters, |row| row.get(3))
                .unwrap()
                .map(Result::unwrap)
                .collect();
            let plan = plan.join("\n");
            assert!(plan.contains(expected), "{plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{plan}");
        };
        for sql in [NEXT_RETRY, NEXT_NEW, LAST_NEW] {
            for queue in ["a", "b"] {
                let mut statement = connection.prepare_cached(sql).unwrap();
                let parameters = [queue, "1"];
                let parameters = &parameters[..statement.parameter_count()];
                assert!(!statement.exists(rusqlite::params_from_iter(parameters)).unwrap());
            }
            let statement = connection.prepare_cached(sql).unwrap();
            assert_eq!(statement.get_status(rusqlite::StatementStatus::RePrepare), 0, "{sql}");
        }
        // The query must search only a range of the index. Otherwise it would scan delayed entries too.
        check(NEXT_RETRY, &["", ""], "INDEX retries (queue=? AND due_ms<?)");
        check(NEXT_NEW, &[""], "INDEX new (queue=?)");
    }
}
