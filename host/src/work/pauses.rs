//! Pauses: which tasks, queues and workers rest, and why.
//!
//! Owns the file `control.db` of the state directory, by which the commands `pause` and `resume` talk
//! to a daemon, or to the next one: whoever may write that directory may pause its tasks. A pause
//! holds over restarts; that of a worker ends with its daemon.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use loopabull_model::{QueueName, Reason, TaskName};
use loopabull_store::{Store, StoreError};
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

const VERSION: i32 = 1;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS pauses (
        kind TEXT NOT NULL CHECK (kind IN ('task', 'queue', 'worker')),
        name TEXT NOT NULL,
        reason TEXT NOT NULL,
        since_ms INTEGER NOT NULL,
        PRIMARY KEY (kind, name)
    ) STRICT, WITHOUT ROWID;";

/// What rests on this host, and why.
#[derive(Debug)]
pub(crate) struct Pauses {
    store: Store,
    known: watch::Sender<Arc<Known>>,
    /// What is not written yet.
    unwritten: Mutex<Known>,
    /// Held over `await` on purpose: of two that read the file the later must also be the last to say
    /// what it holds.
    refreshing: tokio::sync::Mutex<()>,
}

type Known = BTreeMap<Target, Pause>;

/// What can rest.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
#[serde(tag = "kind", content = "name", rename_all = "kebab-case")]
pub(crate) enum Target {
    Task(TaskName),
    Queue(QueueName),
    /// A worker of the running daemon, counted from 1.
    Worker(u32),
}

/// Why something rests.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub(crate) struct Pause {
    pub reason: String,
    /// Milliseconds since 1970.
    pub since_ms: i64,
}

impl Target {
    /// Returns the word for what it is.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Task(_) => "task",
            Self::Queue(_) => "queue",
            Self::Worker(_) => "worker",
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Task(name) => name.to_string(),
            Self::Queue(name) => name.to_string(),
            Self::Worker(number) => number.to_string(),
        }
    }

    fn read(kind: &str, name: String) -> Option<Self> {
        match kind {
            "task" => TaskName::try_from(name).ok().map(Self::Task),
            "queue" => QueueName::try_from(name).ok().map(Self::Queue),
            _ => name.parse().ok().map(Self::Worker),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.kind(), self.name())
    }
}

impl Pauses {
    /// Opens the pauses of a state directory. What rests is known after the first `refresh`.
    pub(crate) fn open(state: &Path) -> Result<Self, StoreError> {
        let store = Store::open(&state.join("control.db"), SCHEMA, VERSION)?;
        Ok(Self {
            store,
            known: watch::Sender::new(Arc::default()),
            unwritten: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
        })
    }

    /// Lets something rest. What rests already keeps its first reason. Returns once that is on disk;
    /// after an error it rests all the same, and is written by a later `refresh`.
    pub(crate) async fn pause(&self, target: Target, reason: &Reason) -> Result<(), StoreError> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        let pause = Pause { reason: reason.to_string(), since_ms: since };
        self.unwritten().insert(target.clone(), pause);
        self.show();
        self.refresh().await.map(|_| ())
    }

    async fn write(&self, target: &Target, pause: &Pause) -> Result<(), StoreError> {
        let (target, pause) = (target.clone(), pause.clone());
        let insert = move |connection: &Connection| {
            connection.execute(
                "INSERT OR IGNORE INTO pauses VALUES (?1, ?2, ?3, ?4)",
                params![target.kind(), target.name(), pause.reason, pause.since_ms],
            )
        };
        self.store.change(insert).await.map(|_| ())
    }

    /// Ends a pause; tells whether there was one.
    pub(crate) async fn resume(&self, target: Target) -> Result<bool, StoreError> {
        self.unwritten().remove(&target);
        let delete = move |connection: &Connection| {
            connection.execute(
                "DELETE FROM pauses WHERE kind = ?1 AND name = ?2",
                params![target.kind(), target.name()],
            )
        };
        let count = self.store.change(delete).await?;
        self.refresh().await?;
        Ok(count > 0)
    }

    /// Reads the file, and returns what rested before and does not any more.
    pub(crate) async fn refresh(&self) -> Result<Vec<Target>, StoreError> {
        let _refreshing = self.refreshing.lock().await;
        let unwritten = self.unwritten().clone();
        for (target, pause) in unwritten {
            self.write(&target, &pause).await?;
            self.unwritten().remove(&target);
        }
        let mut known = self.list().await?;
        known.extend(self.unwritten().clone());
        let known = Arc::new(known);
        let old = self.known.borrow().clone();
        if old != known {
            self.known.send_replace(Arc::clone(&known));
        }
        Ok(old.keys().filter(|target| !known.contains_key(target)).cloned().collect())
    }

    /// Returns all that rests, from the file.
    pub(crate) async fn list(&self) -> Result<BTreeMap<Target, Pause>, StoreError> {
        let read = |connection: &Connection| {
            connection
                .prepare("SELECT kind, name, reason, since_ms FROM pauses")?
                .query_map([], |row| {
                    let kind: String = row.get(0)?;
                    let pause = Pause { reason: row.get(2)?, since_ms: row.get(3)? };
                    Ok(Target::read(&kind, row.get(1)?).map(|target| (target, pause)))
                })?
                .filter_map(Result::transpose)
                .collect()
        };
        self.store.read(read).await
    }

    /// Returns all that rests, as it was last read.
    pub(crate) fn known(&self) -> Arc<BTreeMap<Target, Pause>> {
        self.known.borrow().clone()
    }

    /// Adds what is not written to what is known.
    fn show(&self) {
        let unwritten = self.unwritten().clone();
        self.known.send_modify(|known| Arc::make_mut(known).extend(unwritten));
    }

    fn unwritten(&self) -> MutexGuard<'_, Known> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whether something rests.
    pub(crate) fn rests(&self, target: &Target) -> bool {
        self.known.borrow().contains_key(target)
    }

    /// Waits until one of these rests, or, with `false`, until none does.
    pub(crate) async fn wait(&self, targets: &[Target], any_rests: bool) {
        let rests = |known: &Arc<Known>| targets.iter().any(|target| known.contains_key(target));
        let mut known = self.known.subscribe();
        // The sender is ours, so it is there as long as we are.
        drop(known.wait_for(|known| rests(known) == any_rests).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> Target {
        Target::Task("t".try_into().unwrap())
    }

    #[tokio::test]
    async fn a_pause_holds_over_a_restart_and_keeps_its_first_reason() {
        let state = tempfile::tempdir().unwrap();
        let pauses = Pauses::open(state.path()).unwrap();
        pauses.pause(task(), &"first".into()).await.unwrap();
        pauses.pause(task(), &"second".into()).await.unwrap();
        drop(pauses);
        let pauses = Pauses::open(state.path()).unwrap();
        assert!(!pauses.rests(&task()));
        assert_eq!(pauses.refresh().await.unwrap(), []);
        assert!(pauses.rests(&task()));
        assert_eq!(pauses.known()[&task()].reason, "first");
    }

    #[tokio::test]
    async fn a_resume_by_another_process_is_heard_of() {
        let state = tempfile::tempdir().unwrap();
        let daemon = Pauses::open(state.path()).unwrap();
        let command = Pauses::open(state.path()).unwrap();
        command.pause(task(), &"x".into()).await.unwrap();
        command.pause(Target::Worker(3), &"x".into()).await.unwrap();
        daemon.refresh().await.unwrap();
        daemon.wait(&[task()], true).await;
        assert!(command.resume(task()).await.unwrap());
        assert!(!command.resume(task()).await.unwrap());
        assert_eq!(daemon.refresh().await.unwrap(), [task()]);
        daemon.wait(&[task()], false).await;
        assert!(daemon.rests(&Target::Worker(3)));
    }
}
