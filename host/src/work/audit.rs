//! The audit log: who changed what, on this host. Each action of an operator is a line, whether it came from a command or
//! from the operator's port.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use loopabull_model::Reason;
use loopabull_store::{Store, StoreError};
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

use crate::work::control;

/// The number of lines that are kept.
const KEEP: i64 = 10_000;

/// The audit log of this host.
#[derive(Debug)]
pub(crate) struct Audit(Store);

/// A line of the audit log.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub(crate) struct Action {
    /// In milliseconds since 1970.
    pub at_ms: i64,
    /// A user of this machine, or an address that had the token.
    pub who: String,
    /// What was done, for example `pause`.
    pub action: String,
    /// To what it was done: a task, a queue, or a selection of messages.
    pub target: String,
    /// How many things it changed.
    pub count: u64,
}

impl Audit {
    /// Opens the log in a state directory. Creates it if it is missing.
    pub(crate) fn open(state: &Path) -> Result<Self, StoreError> {
        control::open(state).map(Self)
    }

    /// Opens the log to read it. `None` if there is none.
    pub(crate) fn open_to_read(state: &Path) -> Result<Option<Self>, StoreError> {
        Ok(control::open_to_read(state)?.map(Self))
    }

    /// Adds a line to the audit log and to the log.
    pub(crate) async fn record(
        &self,
        who: &str,
        action: &'static str,
        target: &str,
        count: u64,
    ) -> Result<(), StoreError> {
        let [who, target] = [who, target].map(|text| Reason::from(text).to_string());
        tracing::info!(audit.who = %who, audit.action = action, audit.target = %target, audit.count = count, "{action} {target}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        let insert = move |connection: &Connection| {
            connection.execute(
                "INSERT INTO audit (at_ms, who, action, target, count) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![at_ms, who, action, target, count],
            )?;
            let last = connection.last_insert_rowid();
            connection.execute("DELETE FROM audit WHERE id <= ?1", [last - KEEP]).map(drop)
        };
        self.0.change(insert).await
    }

    /// Returns up to `limit` lines, newest first.
    pub(crate) async fn list(&self, limit: u32) -> Result<Vec<Action>, StoreError> {
        let query = move |connection: &Connection| {
            // The file of the previous version has no such table.
            if !connection.table_exists(None, "audit")? {
                return Ok(Vec::new());
            }
            let sql = "SELECT * FROM audit ORDER BY id DESC LIMIT ?1";
            connection.prepare(sql)?.query_map([limit], action)?.collect()
        };
        self.0.read(query).await
    }
}

fn action(row: &Row<'_>) -> rusqlite::Result<Action> {
    Ok(Action {
        at_ms: row.get("at_ms")?,
        who: row.get("who")?,
        action: row.get("action")?,
        target: row.get("target")?,
        count: row.get("count")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_action_comes_first() {
        let state = tempfile::tempdir().unwrap();
        let audit = Audit::open(state.path()).unwrap();
        audit.record("ann", "pause", "task `a`", 1).await.unwrap();
        audit.record("bob\n\u{1b}[2J", "requeue", "task `a`", 7).await.unwrap();
        let lines = Audit::open(state.path()).unwrap().list(10).await.unwrap();
        let lines: Vec<_> = lines
            .iter()
            .map(|line| (line.who.as_str(), line.action.as_str(), line.count))
            .collect();
        assert_eq!(lines, [("bob\\n\\u{1b}[2J", "requeue", 7), ("ann", "pause", 1)]);
        assert_eq!(audit.list(1).await.unwrap().len(), 1);
    }
}
