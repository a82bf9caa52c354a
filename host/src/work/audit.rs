//! The audit log: who changed what, on this host. Each action of an operator is a line, whether it came from a command or
//! from the operator's port.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use loopabull_model::Reason;
use loopabull_store::{Store, StoreError};
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::work::control;

/// The count of a line whose action has not ended.
const UNKNOWN: i64 = -1;
/// The number of lines that are kept.
const KEEP: i64 = 10_000;

/// The audit log of this host.
#[derive(Debug)]
pub(crate) struct Audit(Store);

/// A line of the audit log.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize, ToSchema)]
pub(crate) struct Action {
    /// Number of the line.
    pub id: i64,
    /// In milliseconds since 1970.
    pub at_ms: i64,
    /// A user of this machine, or an address that had the token.
    pub who: String,
    /// What was done, for example `pause`.
    pub action: String,
    /// To what it was done: a task, a queue, or a selection of messages.
    pub target: String,
    /// How many things it changed. None if the action is in progress, failed, or was cut off.
    pub count: Option<u64>,
}

/// A line whose action has begun.
#[derive(Debug)]
pub(crate) struct Begun {
    id: i64,
    text: String,
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

    /// Adds a line for an action that is done, to the audit log and to the log.
    pub(crate) async fn record(
        &self,
        who: &str,
        action: &'static str,
        target: &str,
        count: u64,
    ) -> Result<(), StoreError> {
        let begun = self.begin(who, action, target).await?;
        self.finish(&begun, count).await
    }

    /// Adds a line for an action that begins now and can take long. So it is recorded even if the process ends meanwhile.
    pub(crate) async fn begin(
        &self,
        who: &str,
        action: &'static str,
        target: &str,
    ) -> Result<Begun, StoreError> {
        let [who, target] = [who, target].map(|text| Reason::from(text).to_string());
        let text = format!("{action} {target}");
        tracing::info!(audit.who = %who, audit.action = action, audit.target = %target, "{text}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        let insert = move |connection: &Connection| {
            connection.execute(
                "INSERT INTO audit (at_ms, who, action, target, count) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![at_ms, who, action, target, UNKNOWN],
            )?;
            let last = connection.last_insert_rowid();
            connection.execute("DELETE FROM audit WHERE id <= ?1", [last - KEEP])?;
            Ok(last)
        };
        Ok(Begun { id: self.0.change(insert).await?, text })
    }

    /// Adds to a line how many things its action changed.
    pub(crate) async fn finish(&self, begun: &Begun, count: u64) -> Result<(), StoreError> {
        let (id, text) = (begun.id, &begun.text);
        tracing::info!(audit.count = count, "{text}: {count} changed");
        let update = move |connection: &Connection| {
            connection.execute("UPDATE audit SET count = ?2 WHERE id = ?1", params![id, count])
        };
        self.0.change(update).await.map(drop)
    }

    /// Returns up to `limit` lines before a line, newest first.
    pub(crate) async fn list(
        &self,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Action>, StoreError> {
        let query = move |connection: &Connection| {
            // The file of the previous version has no such table.
            if !connection.table_exists(None, "audit")? {
                return Ok(Vec::new());
            }
            let sql = "SELECT * FROM audit WHERE id < ?1 ORDER BY id DESC LIMIT ?2";
            connection
                .prepare(sql)?
                .query_map(params![before.unwrap_or(i64::MAX), limit], action)?
                .collect()
        };
        self.0.read(query).await
    }
}

fn action(row: &Row<'_>) -> rusqlite::Result<Action> {
    Ok(Action {
        id: row.get("id")?,
        at_ms: row.get("at_ms")?,
        who: row.get("who")?,
        action: row.get("action")?,
        target: row.get("target")?,
        count: u64::try_from(row.get::<_, i64>("count")?).ok(),
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
        let lines = Audit::open(state.path()).unwrap().list(None, 10).await.unwrap();
        let lines: Vec<_> = lines
            .iter()
            .map(|line| (line.who.as_str(), line.action.as_str(), line.count))
            .collect();
        assert_eq!(lines, [("bob\\n\\u{1b}[2J", "requeue", Some(7)), ("ann", "pause", Some(1))]);
        assert_eq!(audit.list(None, 1).await.unwrap().len(), 1);
        let begun = audit.begin("ann", "drop", "task `a`").await.unwrap();
        assert_eq!(audit.list(None, 1).await.unwrap()[0].count, None);
        audit.finish(&begun, 3).await.unwrap();
        assert_eq!(audit.list(None, 1).await.unwrap()[0].count, Some(3));
        let newest = audit.list(None, 1).await.unwrap()[0].id;
        assert_eq!(audit.list(Some(newest), 10).await.unwrap().len(), 2);
    }
}
