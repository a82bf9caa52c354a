//! Pauses of tasks, queues and workers, with their reasons.
//!
//! The pauses are stored in the file `control.db` in the state directory. The commands `pause` and
//! `resume` change the file, and the daemon rereads it. So a user needs only write access to the
//! state directory to pause a task. Pauses of tasks and queues survive restarts; the pause of a
//! worker ends with its daemon.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use loopabull_model::{Pause, PausedBy, Reason, Target, chain};
use loopabull_store::{Store, StoreError};
use parking_lot::Mutex;
use rusqlite::{Connection, params};
use tokio::sync::watch;

use crate::work::control;

/// The pauses of this host.
#[derive(Debug)]
pub(crate) struct Pauses {
    store: Store,
    current: watch::Sender<Arc<PauseMap>>,
    /// Pauses that have taken effect but are not in the file yet.
    unwritten: Mutex<PauseMap>,
    /// Targets whose pauses have ended.
    resumed: Mutex<Vec<Target>>,
    /// Lock for rereading the file, held over `await` on purpose. Without the lock, older content
    /// of the file could replace newer content.
    refreshing: tokio::sync::Mutex<()>,
}

type PauseMap = BTreeMap<Target, Pause>;

impl Pauses {
    /// Opens the file in a state directory. The first [`Self::refresh`] reads the pauses.
    pub(crate) fn open(state: &Path) -> Result<Self, StoreError> {
        Ok(Self::new(control::open(state)?))
    }

    /// Opens the file in a state directory to read it. `None` if there is none.
    pub(crate) fn open_to_read(state: &Path) -> Result<Option<Self>, StoreError> {
        Ok(control::open_to_read(state)?.map(Self::new))
    }

    fn new(store: Store) -> Self {
        Self {
            store,
            current: watch::Sender::new(Arc::default()),
            unwritten: Mutex::default(),
            resumed: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
        }
    }

    /// Pauses a target. A target that is already paused keeps its first reason, except that anything
    /// replaces the pause of a circuit breaker. Returns whether the pause took effect, once it is on disk. After an error, it has
    /// taken effect anyway, and a later [`Self::refresh`] writes it.
    pub(crate) async fn pause(
        &self,
        target: Target,
        by: PausedBy,
        reason: &Reason,
    ) -> Result<bool, StoreError> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        let pause = Pause { reason: reason.to_string(), since_ms: since, by };
        let mut is_new = true;
        self.current.send_modify(|current| {
            is_new = current.get(&target).is_none_or(Pause::can_be_replaced);
            if is_new {
                let mut unwritten = self.unwritten.lock();
                add(&mut unwritten, [(target.clone(), pause)].into());
                add(Arc::make_mut(current), unwritten.clone());
            }
        });
        self.refresh().await.map(|()| is_new)
    }

    /// Pauses a target on behalf of the daemon, and logs the reason.
    pub(crate) async fn pause_automatically(&self, target: Target, by: PausedBy, reason: &Reason) {
        tracing::error!("{target} is paused: {reason}; end the pause with `loopabull-host resume`");
        if let Err(error) = self.pause(target.clone(), by, reason).await {
            let error = chain(error);
            tracing::error!(
                "cannot save the pause of {target} yet, so a restart would end it: {error}"
            );
        }
    }

    /// Ends the pause of a circuit breaker, but not one by which an operator has replaced it meanwhile.
    pub(crate) async fn end_automatically(&self, target: Target) {
        self.unwritten
            .lock()
            .retain(|unwritten, pause| *unwritten != target || pause.by != PausedBy::Breaker);
        let (kind, name) = (target.kind(), target.name());
        let delete = move |connection: &Connection| {
            let sql = "DELETE FROM pauses WHERE kind = ?1 AND name = ?2 AND paused_by = 'breaker'";
            connection.execute(sql, params![kind, name])
        };
        let ended = match self.store.change(delete).await {
            Ok(_) => self.refresh().await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            tracing::error!("cannot end the pause of {target}: {}", chain(error));
        }
    }

    async fn write(&self, target: &Target, pause: &Pause) -> Result<(), StoreError> {
        let (target, pause) = (target.clone(), pause.clone());
        let insert = move |connection: &Connection| {
            connection.execute(
                "INSERT INTO pauses VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE
                 SET reason = excluded.reason, paused_by = excluded.paused_by WHERE paused_by = 'breaker'",
                params![
                    target.kind(),
                    target.name(),
                    pause.reason,
                    pause.since_ms,
                    pause.by.as_str()
                ],
            )
        };
        self.store.change(insert).await.map(|_| ())
    }

    /// Resumes a target. Returns whether the target was paused in the file.
    pub(crate) async fn resume(&self, target: Target) -> Result<bool, StoreError> {
        self.unwritten.lock().remove(&target);
        let delete = move |connection: &Connection| {
            connection.execute(
                "DELETE FROM pauses WHERE kind = ?1 AND name = ?2",
                params![target.kind(), target.name()],
            )
        };
        let count = self.store.change(delete).await?;
        // The pause has ended in the file, so a later refresh ends it here too.
        if let Err(error) = self.refresh().await {
            tracing::warn!("cannot reread the pauses yet: {}", chain(error));
        }
        Ok(count > 0)
    }

    /// Returns the targets whose pauses have ended since the last call.
    pub(crate) fn take_resumed(&self) -> Vec<Target> {
        std::mem::take(&mut *self.resumed.lock())
    }

    /// Writes the pauses that are not in the file yet, and rereads the file.
    pub(crate) async fn refresh(&self) -> Result<(), StoreError> {
        let _refreshing = self.refreshing.lock().await;
        let unwritten = self.unwritten.lock().clone();
        for (target, pause) in unwritten {
            self.write(&target, &pause).await?;
            // Meanwhile an operator may have replaced the pause of a breaker.
            let mut unwritten = self.unwritten.lock();
            if unwritten.get(&target) == Some(&pause) {
                unwritten.remove(&target);
            }
        }
        let mut listed = self.list()?;
        let mut ended = Vec::new();
        self.current.send_if_modified(|current| {
            // Meanwhile another pause may have taken effect.
            add(&mut listed, self.unwritten.lock().clone());
            ended.extend(current.keys().filter(|target| !listed.contains_key(target)).cloned());
            let has_changed = **current != listed;
            if has_changed {
                *current = Arc::new(std::mem::take(&mut listed));
            }
            has_changed
        });
        self.resumed.lock().extend(ended);
        Ok(())
    }

    /// Returns all pauses in the file.
    pub(crate) fn list(&self) -> Result<BTreeMap<Target, Pause>, StoreError> {
        let read = |connection: &Connection| {
            connection
                .prepare_cached("SELECT kind, name, reason, since_ms, paused_by FROM pauses")?
                .query_map([], |row| {
                    let (kind, by): (String, String) = (row.get(0)?, row.get(4)?);
                    let by = PausedBy::from_name(&by).unwrap_or(PausedBy::Daemon);
                    let pause = Pause { reason: row.get(2)?, since_ms: row.get(3)?, by };
                    Ok(Target::from_parts(&kind, row.get(1)?).map(|target| (target, pause)))
                })?
                .filter_map(Result::transpose)
                .collect()
        };
        self.store.look_up(read)
    }

    /// Returns the current pauses.
    pub(crate) fn current(&self) -> Arc<BTreeMap<Target, Pause>> {
        self.current.borrow().clone()
    }

    /// Returns whether a target is paused.
    pub(crate) fn is_paused(&self, target: &Target) -> bool {
        self.current.borrow().contains_key(target)
    }

    /// Waits until at least one of the targets is paused.
    pub(crate) async fn wait_until_paused(&self, targets: &[Target]) {
        let is_any = |current: &PauseMap| targets.iter().any(|t| current.contains_key(t));
        self.wait_for(is_any).await;
    }

    /// Waits until none of the targets is paused.
    pub(crate) async fn wait_until_resumed(&self, targets: &[Target]) {
        let is_none = |current: &PauseMap| !targets.iter().any(|t| current.contains_key(t));
        self.wait_for(is_none).await;
    }

    async fn wait_for(&self, condition: impl Fn(&PauseMap) -> bool) {
        let mut current = self.current.subscribe();
        // `wait_for` fails only if the sender is dropped. The sender belongs to `self`, so the
        // result is ignored.
        drop(current.wait_for(|current| condition(current)).await);
    }
}

/// Adds pauses to others. A target that is already paused keeps its pause, except one of a breaker.
fn add(pauses: &mut PauseMap, more: PauseMap) {
    for (target, pause) in more {
        let current = pauses.entry(target).or_insert_with(|| pause.clone());
        if current.can_be_replaced() {
            *current = Pause { since_ms: current.since_ms, ..pause };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> Target {
        Target::Task("t".try_into().unwrap())
    }

    #[tokio::test]
    async fn a_pause_survives_a_restart_and_keeps_its_first_reason() {
        let state = tempfile::tempdir().unwrap();
        let pauses = Pauses::open(state.path()).unwrap();
        pauses.pause(task(), PausedBy::Daemon, &"first".into()).await.unwrap();
        pauses.pause(task(), PausedBy::Operator, &"second".into()).await.unwrap();
        drop(pauses);
        let pauses = Pauses::open(state.path()).unwrap();
        assert!(!pauses.is_paused(&task()));
        pauses.refresh().await.unwrap();
        assert_eq!(pauses.take_resumed(), []);
        assert!(pauses.is_paused(&task()));
        assert_eq!(pauses.current()[&task()].reason, "first");
    }

    /// A circuit breaker ends its pause by itself, so the pause of an operator must replace it.
    #[tokio::test]
    async fn an_operator_replaces_the_pause_of_a_breaker() {
        let state = tempfile::tempdir().unwrap();
        let pauses = Pauses::open(state.path()).unwrap();
        for (by, expected) in [
            (PausedBy::Breaker, PausedBy::Breaker),
            (PausedBy::Operator, PausedBy::Operator),
            (PausedBy::Breaker, PausedBy::Operator),
        ] {
            pauses.pause(task(), by, &by.as_str().into()).await.unwrap();
            assert_eq!(pauses.current()[&task()].by, expected);
            assert_eq!(pauses.list().unwrap()[&task()].reason, expected.as_str());
        }
    }

    #[tokio::test]
    async fn pauses_and_resumes_of_another_process_are_noticed() {
        let state = tempfile::tempdir().unwrap();
        let daemon = Pauses::open(state.path()).unwrap();
        let command = Pauses::open(state.path()).unwrap();
        command.pause(task(), PausedBy::Operator, &"x".into()).await.unwrap();
        command.pause(Target::Worker(3), PausedBy::Daemon, &"x".into()).await.unwrap();
        daemon.refresh().await.unwrap();
        daemon.wait_until_paused(&[task()]).await;
        assert!(command.resume(task()).await.unwrap());
        assert!(!command.resume(task()).await.unwrap());
        daemon.refresh().await.unwrap();
        assert_eq!(daemon.take_resumed(), [task()]);
        daemon.wait_until_resumed(&[task()]).await;
        assert!(daemon.is_paused(&Target::Worker(3)));
    }
}
