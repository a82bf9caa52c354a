//! The embedded queue: a SQLite file of one machine.
//!
//! Owns the states of an entry (waiting, claimed, dead) and the claim of the whole file by one
//! working process. Other processes may publish into it and look at it meanwhile.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use loopabull_model::{EntryId, Message, Reason, Settlement, TaskName};
use loopabull_store::Store;
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::{Notify, OnceCell};
use tokio_util::sync::CancellationToken;

use crate::delivery::Tag;
use crate::{Delivery, Depth, QueueError};

/// Counts the changes to the schema that an older file does not survive.
const VERSION: i32 = 1;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS entries (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        entry TEXT NOT NULL,
        task TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('waiting', 'claimed', 'dead')),
        attempt INTEGER NOT NULL DEFAULT 0,   -- how many were started
        enqueued_ms INTEGER NOT NULL,
        due_ms INTEGER NOT NULL,              -- a retry waits until then; the order of all
        reason TEXT,                          -- why it is dead
        message TEXT NOT NULL                 -- the last, so that the others are near
    ) STRICT;
    CREATE INDEX IF NOT EXISTS waiting ON entries (due_ms, id) WHERE state = 'waiting';
    CREATE INDEX IF NOT EXISTS by_state ON entries (state, enqueued_ms);";

/// A first attempt waits for no time: the clock may have been set back. The index is named, because
/// the planner would take `by_state` and sort all that waits for each claim.
const CLAIM: &str = "
    UPDATE entries SET state = 'claimed', attempt = attempt + 1
    WHERE id = (SELECT id FROM entries INDEXED BY waiting
                WHERE state = 'waiting' AND (attempt = 0 OR due_ms <= ?1)
                ORDER BY due_ms, id LIMIT 1)
    RETURNING id, entry, task, message, attempt";

/// How often an idle worker looks for entries of other processes.
const POLL: Duration = Duration::from_millis(200);

/// A queue in a SQLite file.
#[derive(Debug)]
pub struct Embedded {
    file: PathBuf,
    store: Arc<Store>,
    published: Arc<Notify>,
    /// Made by the first `consume`, held for as long as the queue is open.
    lock: OnceCell<File>,
}

/// One worker's end of an embedded queue.
#[derive(Debug)]
pub struct Consumer {
    store: Arc<Store>,
    published: Arc<Notify>,
}

impl Embedded {
    pub(crate) fn open(file: &Path) -> Result<Self, QueueError> {
        let store = Arc::new(Store::open(file, SCHEMA, VERSION)?);
        let published = Arc::new(Notify::new());
        Ok(Self { file: file.to_owned(), store, published, lock: OnceCell::new() })
    }

    pub(crate) async fn publish(
        &self,
        message: &Message,
        task: &TaskName,
    ) -> Result<(), QueueError> {
        let message = serde_json::to_string(message).expect("a message is made of JSON types");
        let (task, now) = (task.to_string(), now_ms());
        let entry = uuid::Uuid::new_v4().simple().to_string();
        let insert = move |connection: &Connection| {
            connection
                .prepare_cached(
                    "INSERT INTO entries (entry, task, message, state, enqueued_ms, due_ms)
                     VALUES (?1, ?2, ?3, 'waiting', ?4, ?4)",
                )?
                .execute(params![entry, task, message, now])
        };
        self.store.change(insert).await?;
        self.published.notify_one();
        Ok(())
    }

    pub(crate) async fn consume(&self) -> Result<Consumer, QueueError> {
        // The others wait here until the first is done: what they claim must not be taken back.
        self.lock.get_or_try_init(|| self.take_over()).await?;
        Ok(Consumer { store: Arc::clone(&self.store), published: Arc::clone(&self.published) })
    }

    pub(crate) async fn settle(
        &self,
        delivery: &Delivery,
        settlement: &Settlement,
    ) -> Result<(), QueueError> {
        let Tag::Embedded(id) = delivery.tag else {
            unreachable!("a delivery is settled by the queue that made it");
        };
        let settlement = settlement.clone();
        let changed =
            self.store.change(move |connection| settle(connection, id, &settlement)).await?;
        self.published.notify_one();
        if changed == 1 {
            Ok(())
        } else {
            Err(QueueError::LostClaim { message: delivery.message.id.to_string() })
        }
    }

    pub(crate) async fn depth(&self) -> Result<Depth, QueueError> {
        let now = now_ms();
        let count = |connection: &Connection| {
            connection
                .prepare("SELECT state, count(*), min(enqueued_ms) FROM entries GROUP BY state")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect::<rusqlite::Result<Vec<(String, u64, i64)>>>()
        };
        let mut depth = Depth { claimed: Some(0), ..Depth::default() };
        for (state, count, oldest) in self.store.read(count).await? {
            match state.as_str() {
                "waiting" => {
                    depth.waiting = count;
                    let age = u64::try_from(now.saturating_sub(oldest)).unwrap_or_default();
                    depth.oldest = Some(Duration::from_millis(age));
                }
                "claimed" => depth.claimed = Some(count),
                _ => depth.dead = count,
            }
        }
        Ok(depth)
    }

    /// Makes this process the one that works the file, and takes back what an earlier one had
    /// claimed: nobody else can hold those claims, the process that made them is gone.
    async fn take_over(&self) -> Result<File, QueueError> {
        let name = self.file.with_extension("lock");
        let error = |source| QueueError::Lock { file: name.clone(), source };
        let lock = File::create(&name).map_err(error)?;
        match lock.try_lock() {
            Ok(()) => (),
            Err(TryLockError::WouldBlock) => {
                return Err(QueueError::Locked { file: self.file.clone() });
            }
            Err(TryLockError::Error(source)) => return Err(error(source)),
        }
        let take_back = |connection: &Connection| {
            connection.execute("UPDATE entries SET state = 'waiting' WHERE state = 'claimed'", [])
        };
        self.store.change(take_back).await?;
        Ok(lock)
    }
}

impl Consumer {
    pub(crate) async fn receive(
        &mut self,
        stop: &CancellationToken,
    ) -> Result<Option<Delivery>, QueueError> {
        while !stop.is_cancelled() {
            let now = now_ms();
            if let Some(claim) = self.store.change(move |connection| claim(connection, now)).await?
            {
                match claim.into_delivery() {
                    Ok(delivery) => return Ok(Some(delivery)),
                    // Should this fail, the entry is taken back after the restart.
                    Err((id, reason)) => {
                        let dead = Settlement::DeadLetter { reason };
                        self.store.change(move |connection| settle(connection, id, &dead)).await?;
                    }
                }
                continue;
            }
            // All three may be dropped at any time: nothing is claimed while we wait.
            tokio::select! {
                () = self.published.notified() => (),
                () = tokio::time::sleep(POLL) => (),
                () = stop.cancelled() => (),
            }
        }
        Ok(None)
    }
}

struct Claim {
    id: i64,
    entry: String,
    task: String,
    message: String,
    attempt: u32,
}

impl Claim {
    /// Reads the entry; what cannot be read is named with its row, to be set aside.
    fn into_delivery(self) -> Result<Delivery, (i64, Reason)> {
        let message = serde_json::from_str(&self.message)
            .map_err(|error| (self.id, format!("undecodable: {error}").into()))?;
        let task = TaskName::try_from(self.task)
            .map_err(|error| (self.id, format!("undecodable: {error}").into()))?;
        let (entry, tag) = (EntryId::new(self.entry), Tag::Embedded(self.id));
        Ok(Delivery { entry, message, task, attempt: self.attempt, tag })
    }
}

fn claim(connection: &Connection, now_ms: i64) -> rusqlite::Result<Option<Claim>> {
    connection
        .prepare_cached(CLAIM)?
        .query_row([now_ms], |row| {
            Ok(Claim {
                id: row.get(0)?,
                entry: row.get(1)?,
                task: row.get(2)?,
                message: row.get(3)?,
                attempt: row.get(4)?,
            })
        })
        .optional()
}

/// Returns how many rows changed: 1, or 0 if the claim is gone.
fn settle(connection: &Connection, id: i64, settlement: &Settlement) -> rusqlite::Result<usize> {
    let execute = |sql: &str, parameters: &[&dyn rusqlite::ToSql]| {
        connection.prepare_cached(sql)?.execute(parameters)
    };
    match settlement {
        Settlement::Ack => {
            execute("DELETE FROM entries WHERE id = ?1 AND state = 'claimed'", &[&id])
        }
        Settlement::Retry { after } => {
            let pause = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
            execute(
                "UPDATE entries SET state = 'waiting', due_ms = ?2
                 WHERE id = ?1 AND state = 'claimed'",
                &[&id, &now_ms().saturating_add(pause)],
            )
        }
        Settlement::DeadLetter { reason } => execute(
            "UPDATE entries SET state = 'dead', reason = ?2 WHERE id = ?1 AND state = 'claimed'",
            &[&id, &reason.as_str()],
        ),
        Settlement::GiveBack => execute(
            "UPDATE entries SET state = 'waiting', attempt = attempt - 1
             WHERE id = ?1 AND state = 'claimed'",
            &[&id],
        ),
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_does_not_sort_what_waits() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(SCHEMA).unwrap();
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {CLAIM}")).unwrap();
        let plan: Vec<String> =
            statement.query_map([0], |row| row.get(3)).unwrap().map(Result::unwrap).collect();
        let plan = plan.join("\n");
        assert!(plan.contains("USING INDEX waiting"), "{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    }
}
