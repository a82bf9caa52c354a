//! Counts the entries of a queue. Each part of the count reads a range of one index.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use loopabull_model::TaskName;
use rusqlite::{Connection, OptionalExtension, ToSql, params};

use crate::clock::{now_ms, steady_ms};
use crate::depth::{Bound, Depth, Held, Oldest};

/// Counts the entries of a queue. The claimed rows wait no more.
pub(super) fn count(
    connection: &Connection,
    queue: &str,
    claimed: &BTreeSet<i64>,
) -> rusqlite::Result<Depth> {
    let (now, steady) = (now_ms(), steady_ms());
    let age = |since: i64| milliseconds(now.saturating_sub(since));
    let number = |sql: &str, parameters: &[&dyn ToSql]| {
        connection.prepare_cached(sql)?.query_row(parameters, |row| row.get::<_, u64>(0))
    };
    let new = number(
        "SELECT count(*) FROM entries INDEXED BY new
         WHERE queue = +?1 AND state = 'waiting' AND due_ms = queued_ms",
        &[&queue],
    )?;
    let due = number(
        "SELECT count(*) FROM entries INDEXED BY retries
         WHERE queue = +?1 AND state = 'waiting' AND due_ms <> queued_ms AND due_ms <= ?2",
        &[&queue, &steady],
    )?;
    let (delayed, last_due) = connection
        .prepare_cached(
            "SELECT count(*), max(due_ms) FROM entries INDEXED BY retries
             WHERE queue = +?1 AND state = 'waiting' AND due_ms <> queued_ms AND due_ms > ?2",
        )?
        .query_row(params![queue, steady], |row| {
            Ok((row.get(0)?, row.get::<_, Option<i64>>(1)?))
        })?;
    let dead = number(
        "SELECT count(*) FROM entries INDEXED BY dead WHERE queue = +?1 AND state = 'dead'",
        &[&queue],
    )?;
    let count = claimed.len() as u64;
    let waiting = (new + due).saturating_sub(count);
    let oldest = if waiting > 0 { oldest(connection, queue, steady, claimed)? } else { None };
    Ok(Depth {
        waiting,
        delayed,
        longest_delay: last_due.map(|due| milliseconds(due.saturating_sub(steady))),
        held: held(connection, queue, age)?,
        claimed: Some(count),
        dead,
        oldest: oldest.map(|since| Oldest { age: age(since), bound: Bound::Exact }),
    })
}

/// Returns since when the oldest waiting entry waits.
fn oldest(
    connection: &Connection,
    queue: &str,
    steady: i64,
    claimed: &BTreeSet<i64>,
) -> rusqlite::Result<Option<i64>> {
    let claimed: Vec<_> = claimed.iter().map(i64::to_string).collect();
    let claimed = claimed.join(",");
    let oldest = |index: &str, condition: &str, parameters: &[&dyn ToSql]| {
        let sql = format!(
            "SELECT max(queued_ms, due_ms) FROM entries INDEXED BY {index}
             WHERE queue = +?1 AND state = 'waiting' AND {condition} AND id NOT IN ({claimed})
             ORDER BY due_ms, id LIMIT 1"
        );
        let row = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
        connection.query_row(&sql, parameters, row).optional()
    };
    let new = oldest("new", "due_ms = queued_ms", &[&queue])?;
    let due = oldest("retries", "due_ms <> queued_ms AND due_ms <= ?2", &[&queue, &steady])?;
    Ok(new.into_iter().chain(due).min())
}

/// Counts the held entries by task.
fn held(
    connection: &Connection,
    queue: &str,
    age: impl Fn(i64) -> Duration,
) -> rusqlite::Result<BTreeMap<TaskName, Held>> {
    let counts: Vec<(String, u64, i64)> = connection
        .prepare_cached(
            "SELECT task, count(*), min(queued_ms) FROM entries INDEXED BY held
             WHERE queue = +?1 AND state = 'held' GROUP BY task",
        )?
        .query_map([queue], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<_, _>>()?;
    // An entry is stored with a valid name of its task.
    let held = counts.into_iter().filter_map(|(task, count, since)| {
        Some((TaskName::try_from(task).ok()?, Held { count, oldest: Some(age(since)) }))
    });
    Ok(held.collect())
}

fn milliseconds(count: i64) -> Duration {
    Duration::from_millis(u64::try_from(count).unwrap_or_default())
}
