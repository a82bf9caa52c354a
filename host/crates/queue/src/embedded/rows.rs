//! The table of the embedded queues, and the SQL statements that read and change its rows.
//!
//! The crate `loopabull-store` runs these functions. It runs functions that change rows in a transaction.

use loopabull_model::{Entry, EntryId, Reason, Settlement, TaskName};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use crate::clock::{now_ms, steady_ms};
use crate::dead_letter::{self, DeadLetter, DeathRecord, Verdict};
use crate::delivered::DeliveredEntry;

/// The table of the embedded queues: a step of the schema of the file that contains them. As each step, it never changes.
pub const TABLES: &str = "
    CREATE TABLE entries (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        queue TEXT NOT NULL,
        entry TEXT NOT NULL UNIQUE,
        task TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('waiting', 'held', 'dead')),
        attempts INTEGER NOT NULL DEFAULT 0,  -- settled attempts
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
    CREATE INDEX dead ON entries (queue, id) WHERE state = 'dead';";

/// Selects the retries that are due, first the one that has been due for the longest time. Without the `+`, SQLite would
/// plan each query of this kind anew for each value (seen in 3.54): the value might matter for the order.
const NEXT_RETRIES: &str = "
    SELECT id FROM entries INDEXED BY retries
    WHERE queue = +?1 AND state = 'waiting' AND due_ms <> queued_ms AND due_ms <= ?2
    ORDER BY due_ms, id";
/// Selects the entries that have no delay. The query does not compare their time with the clock, so that they are
/// delivered even if the clock was set back.
const NEXT_NEW: &str = "
    SELECT id FROM entries INDEXED BY new
    WHERE queue = +?1 AND state = 'waiting' AND due_ms = queued_ms ORDER BY due_ms, id";
/// Selects the time of the last entry that has no delay.
const LAST_NEW: &str = "
    SELECT due_ms FROM entries INDEXED BY new
    WHERE queue = +?1 AND state = 'waiting' AND due_ms = queued_ms ORDER BY due_ms DESC, id DESC LIMIT 1";

/// Returns whether the tables of the caller have a run of an entry.
pub type HasRuns = fn(&Connection, &EntryId) -> rusqlite::Result<bool>;

/// An entry that comes next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Next {
    pub(super) row: i64,
    /// Whether the entry has waited for another attempt.
    pub(super) is_retry: bool,
}

/// An entry that was loaded.
#[derive(Debug)]
pub(super) enum Loaded {
    Entry(Box<DeliveredEntry>),
    /// The row cannot be read.
    Unreadable {
        attempts: u32,
        reason: String,
    },
    /// The row does not exist any more.
    Gone,
}

/// Publishes an entry to its embedded queue in the transaction of the connection, unless an entry with the same id exists.
/// Call [`Queues::wake`](crate::Queues::wake) after the commit.
pub fn insert(connection: &Connection, entry: &Entry) -> rusqlite::Result<usize> {
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

/// Size of the messages from which no further entry is loaded with others, in bytes of their bodies.
const MAX_LOADED_BYTES: usize = 1 << 20;

/// Returns the next entries of a queue that are free, up to `count`: a due retry and another entry by turns, which a
/// retry begins unless `is_new_first`.
pub(super) fn next(
    connection: &Connection,
    queue: &str,
    mut is_new_first: bool,
    count: usize,
    is_free: impl Fn(i64) -> bool,
) -> rusqlite::Result<Vec<Next>> {
    let row = |row: &Row<'_>| row.get(0);
    let is_free = |row: &rusqlite::Result<i64>| row.as_ref().map_or(true, |row| is_free(*row));
    let (mut retries, mut new) =
        (connection.prepare_cached(NEXT_RETRIES)?, connection.prepare_cached(NEXT_NEW)?);
    let mut retries = retries.query_map(params![queue, steady_ms()], row)?.filter(is_free);
    let mut new = new.query_map([queue], row)?.filter(is_free);
    let mut found = Vec::new();
    while found.len() < count {
        let next = match is_new_first {
            true => new.next().map(|row| (row, false)).or_else(|| Some((retries.next()?, true))),
            false => retries.next().map(|row| (row, true)).or_else(|| Some((new.next()?, false))),
        };
        let Some((row, is_retry)) = next else { break };
        found.push(Next { row: row?, is_retry });
        is_new_first = is_retry;
    }
    Ok(found)
}

/// Loads entries, until their messages are large. All queries see the same state of the file.
pub(super) fn load(
    connection: &Connection,
    found: &[Next],
    has_runs: Option<HasRuns>,
) -> rusqlite::Result<Vec<Loaded>> {
    let transaction = connection.unchecked_transaction()?;
    let mut statement = connection.prepare_cached(
        "SELECT queue, entry, task, message, attempts, queued_ms, history FROM entries WHERE id = ?1",
    )?;
    let (mut loaded, mut bytes) = (Vec::with_capacity(found.len()), 0);
    for Next { row, .. } in found {
        let read = |row: &Row<'_>| {
            let attempts = row.get("attempts")?;
            Ok(match delivered_entry(row) {
                Ok(delivered) => Loaded::Entry(Box::new(delivered)),
                Err(reason) => Loaded::Unreadable { attempts, reason },
            })
        };
        let mut entry = statement.query_row([row], read).optional()?.unwrap_or(Loaded::Gone);
        if let Loaded::Entry(delivered) = &mut entry {
            let id = &delivered.entry.id;
            delivered.has_runs = has_runs.map(|has_runs| has_runs(&transaction, id)).transpose()?;
            bytes += delivered.entry.message.body.as_str().len();
        }
        loaded.push(entry);
        if bytes >= MAX_LOADED_BYTES {
            break;
        }
    }
    Ok(loaded)
}

/// Begins the delays again that began before the clock was set back.
pub(super) fn begin_delays_again(connection: &Connection) -> rusqlite::Result<usize> {
    connection.execute(
        "UPDATE entries SET due_ms = ?1 + (due_ms - delayed_ms), delayed_ms = ?1
         WHERE due_ms <> queued_ms AND delayed_ms > ?1",
        [steady_ms()],
    )
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

/// Settles a claimed entry. `attempts` is its new count of attempts. Returns the number of changed rows.
pub(super) fn settle(
    connection: &Connection,
    id: i64,
    attempts: u32,
    settlement: &Settlement,
) -> rusqlite::Result<usize> {
    let execute = |set: &str, parameters: &[&dyn ToSql]| {
        let sql =
            format!("UPDATE entries SET {set}, attempts = ?2 WHERE id = ?1 AND state = 'waiting'");
        connection.prepare_cached(&sql)?.execute(parameters)
    };
    match settlement {
        Settlement::Ack => connection
            .prepare_cached("DELETE FROM entries WHERE id = ?1 AND state = 'waiting'")?
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
            "SELECT * FROM entries INDEXED BY dead WHERE queue = ?1 AND state = 'dead' AND id > ?2
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
                 SET state = 'waiting', entry = ?3, attempts = 0, queued_ms = ?4,
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
        has_runs: None,
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
        begin_delays_again(&connection).unwrap();
        let wait = |entry: &str| {
            let select = "SELECT due_ms - ?2 FROM entries WHERE entry = ?1";
            connection.query_row(select, params![entry, steady_ms()], |row| row.get::<_, i64>(0))
        };
        assert!((100_000..=120_000).contains(&wait("a").unwrap()));
        // A new entry waits for nothing, whatever its time is.
        assert!(wait("b").unwrap() > 120_000);
        let next = || next(&connection, "q", false, 1, |_| true).unwrap()[0].row;
        assert_eq!(next(), 2);
        assert!((100_000..=119_000).contains(&wait("c").unwrap()));
        assert_eq!(end_delays(&connection, "q").unwrap(), 2);
        assert_eq!(next(), 1);
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
        for sql in [NEXT_RETRIES, NEXT_NEW, LAST_NEW] {
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
        check(NEXT_RETRIES, &["", ""], "INDEX retries (queue=? AND due_ms<?)");
        check(NEXT_NEW, &[""], "INDEX new (queue=?)");
    }
}
