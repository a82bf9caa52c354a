//! Groups failed runs by what is the same in their reasons: what people mean by "3 different errors".

use std::collections::HashMap;
use std::time::{Duration, Instant};

use loopabull_model::{Outcome, RunId, TaskName, normalised_reason};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::rows::{checked, from_json};
use super::search::failed_outcomes;

/// The number of failed runs of each outcome that are looked through, newest first.
const MAX_RUNS: u32 = 2000;
/// The number of groups that are returned.
const MAX_GROUPS: usize = 200;
/// The maximum length of a sample, in characters.
const MAX_SAMPLE: usize = 300;

/// Failed runs of a task whose reasons differ only in numbers, ids, paths and quoted names.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct FailureGroup {
    pub task: TaskName,
    pub outcome: String,
    /// The reason with `…` for what differs.
    pub reason: String,
    pub count: u64,
    /// The start of the first and of the last of these runs, in milliseconds since 1970.
    pub first_ms: i64,
    pub last_ms: i64,
    /// The last of these runs, and its reason as it is.
    pub last: RunId,
    pub sample: String,
}

/// The groups of the failed runs since a time.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct Failures {
    /// Those with the latest runs first.
    pub groups: Vec<FailureGroup>,
    /// Whether there are older runs that were not looked through, or more groups.
    pub is_partial: bool,
}

/// Groups the failed runs that started since a time. Looks through them for about `time`.
pub(super) fn failures(
    connection: &Connection,
    since_ms: i64,
    time: Duration,
) -> rusqlite::Result<Failures> {
    let start = Instant::now();
    let (mut rows, mut is_partial) = (Vec::new(), false);
    // Each outcome is a range of the index `runs_of_outcome`, which has the time and the row.
    for name in failed_outcomes() {
        let mut statement = connection.prepare_cached(
            "SELECT started_at_ms, rowid FROM runs WHERE outcome_name = +?1 AND started_at_ms >= +?2
             ORDER BY started_at_ms DESC LIMIT +?3",
        )?;
        let found = statement.query_map(params![name, since_ms, MAX_RUNS], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        })?;
        let before = rows.len();
        for row in found {
            rows.push(row?);
        }
        is_partial |= rows.len() - before == MAX_RUNS as usize;
    }
    // The newest come first, whatever their outcome.
    rows.sort_unstable_by(|a, b| b.cmp(a));
    let mut groups: HashMap<(TaskName, String, String), FailureGroup> = HashMap::new();
    let mut statement = connection
        .prepare_cached("SELECT id, task, started_at_ms, outcome FROM runs WHERE rowid = ?1")?;
    for (_, row) in rows {
        let failed = statement.query_row([row], |row| {
            Ok(Failed {
                id: RunId::new(row.get::<_, String>("id")?),
                task: checked(row, "task")?,
                started_at_ms: row.get("started_at_ms")?,
                outcome: from_json(row, "outcome")?,
            })
        });
        // A run that was deleted meanwhile does not count.
        if let Some(failed) = failed.optional()? {
            add(&mut groups, &failed);
        }
        if start.elapsed() > time {
            is_partial = true;
            break;
        }
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by(|a, b| b.last_ms.cmp(&a.last_ms).then_with(|| a.reason.cmp(&b.reason)));
    is_partial |= groups.len() > MAX_GROUPS;
    groups.truncate(MAX_GROUPS);
    Ok(Failures { groups, is_partial })
}

/// A failed run.
struct Failed {
    id: RunId,
    task: TaskName,
    started_at_ms: i64,
    outcome: Outcome,
}

fn add(groups: &mut HashMap<(TaskName, String, String), FailureGroup>, run: &Failed) {
    let sample: String = run.outcome.to_string().chars().take(MAX_SAMPLE).collect();
    let (outcome, reason) = (run.outcome.name().to_owned(), normalised_reason(&sample));
    let group =
        groups.entry((run.task.clone(), outcome.clone(), reason.clone())).or_insert_with(|| {
            let (task, last) = (run.task.clone(), run.id.clone());
            let (first_ms, last_ms) = (run.started_at_ms, run.started_at_ms);
            FailureGroup { task, outcome, reason, count: 0, first_ms, last_ms, last, sample }
        });
    // The newest run comes first.
    group.count += 1;
    group.first_ms = group.first_ms.min(run.started_at_ms);
}
