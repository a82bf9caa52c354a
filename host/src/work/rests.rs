//! Rests of tasks whose files or grants cannot be used.
//!
//! A run of such a task ends before it starts. So the task rests for a while, and then one of its
//! entries is tried. If that run does not start either, the task rests twice as long, up to
//! [`LONGEST`]. `/readyz` reports the reason while the task rests. This module does not know how
//! entries are settled.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use loopabull_model::{EntryId, Reason, TaskName};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::observe::health::{Health, Part};

/// The first rest of a task.
const FIRST: Duration = Duration::from_secs(10);
/// The longest rest of a task.
const LONGEST: Duration = Duration::from_secs(10 * 60);

/// The rests of all tasks.
#[derive(Debug)]
pub(crate) struct Rests {
    by_task: Mutex<HashMap<TaskName, Rest>>,
    health: Arc<Health>,
}

/// The rest of one task.
#[derive(Clone, Debug)]
struct Rest {
    until: Instant,
    length: Duration,
    /// The entry that is tried after the rest. The other entries wait for its result until `until`.
    tried: Option<EntryId>,
}

impl Rests {
    pub(crate) fn new(health: Arc<Health>) -> Self {
        Self { by_task: Mutex::default(), health }
    }

    /// Returns how long an entry has to wait because its task rests. Returns `None` if the entry may
    /// run.
    pub(crate) fn left(&self, task: &TaskName, entry: &EntryId) -> Option<Duration> {
        let mut by_task = self.by_task.lock();
        let rest = by_task.get_mut(task)?;
        if rest.tried.as_ref() == Some(entry) {
            return None;
        }
        let now = Instant::now();
        let left = rest.until.saturating_duration_since(now);
        if left.is_zero() {
            rest.until = now + rest.length;
            rest.tried = Some(entry.clone());
            return None;
        }
        Some(left)
    }

    /// Begins a rest, because the run of an entry could not start. A run that was admitted before the
    /// current rest began does not make the rest longer.
    pub(crate) fn begin(&self, task: &TaskName, entry: &EntryId, reason: &Reason) {
        let mut by_task = self.by_task.lock();
        self.health.report(Part::TaskStart(task.clone()), reason);
        let length = match by_task.get(task) {
            None => FIRST,
            Some(rest) if rest.tried.as_ref() == Some(entry) => (rest.length * 2).min(LONGEST),
            Some(_) => return,
        };
        let until = Instant::now() + length;
        by_task.insert(task.clone(), Rest { until, length, tried: None });
    }

    /// Ends the rests of a task, because one of its runs has started.
    pub(crate) fn end(&self, task: &TaskName) {
        let mut by_task = self.by_task.lock();
        if by_task.remove(task).is_some() {
            self.health.resolve(&Part::TaskStart(task.clone()));
        }
    }

    /// Ends the rests of all tasks, because the tasks were reloaded.
    pub(crate) fn end_all(&self) {
        self.end_where(|_| true);
    }

    /// Ends rests that are over: the run of the tried entry did not fail in time, so it has started,
    /// or no entry came to be tried for [`LONGEST`].
    pub(crate) fn expire(&self) {
        let now = Instant::now();
        self.end_where(|rest| match rest.tried {
            Some(_) => rest.until <= now,
            None => rest.until + LONGEST <= now,
        });
    }

    fn end_where(&self, ends: impl Fn(&Rest) -> bool) {
        self.by_task.lock().retain(|task, rest| {
            let ends = ends(rest);
            if ends {
                self.health.resolve(&Part::TaskStart(task.clone()));
            }
            !ends
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        rests: Rests,
        health: Arc<Health>,
        task: TaskName,
    }

    impl Fixture {
        fn new() -> Self {
            let health = Arc::new(Health::default());
            let task = "a".try_into().unwrap();
            Self { rests: Rests::new(Arc::clone(&health)), health, task }
        }

        fn fail(&self, entry: &str) {
            self.rests.begin(&self.task, &EntryId::new(entry), &"no such directory".into());
        }

        /// Returns how many seconds an entry still waits.
        fn left(&self, entry: &str) -> Option<u64> {
            self.rests.left(&self.task, &EntryId::new(entry)).map(|left| left.as_secs())
        }
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_rests_longer_after_each_tried_entry_that_fails() {
        let fixture = Fixture::new();
        assert_eq!(fixture.left("1"), None);
        // These two ran at the same time, so they are one failure.
        fixture.fail("1");
        fixture.fail("2");
        assert_eq!(fixture.left("1"), Some(10));
        assert_eq!(fixture.health.problems(), ["start of task `a`: no such directory"]);
        for length in [20, 40, 80, 160, 320, 600, 600] {
            pass(fixture.left("3").unwrap()).await;
            assert_eq!(fixture.left("1"), None);
            assert_eq!(fixture.left("1"), None, "the tried entry is not held up by itself");
            assert!(fixture.left("2").is_some(), "only one entry is tried");
            fixture.fail("1");
            assert_eq!(fixture.left("2"), Some(length));
        }
        fixture.rests.end(&fixture.task);
        assert_eq!((fixture.left("1"), fixture.health.problems().len()), (None, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_tried_entry_whose_run_goes_on_ends_the_rest() {
        let fixture = Fixture::new();
        fixture.fail("1");
        pass(10).await;
        assert_eq!(fixture.left("1"), None);
        fixture.rests.expire();
        assert_eq!(fixture.left("2"), Some(10));
        pass(10).await;
        fixture.rests.expire();
        assert_eq!((fixture.left("2"), fixture.health.problems().len()), (None, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_without_entries_does_not_rest_for_ever() {
        let fixture = Fixture::new();
        fixture.fail("1");
        pass(600).await;
        fixture.rests.expire();
        assert_eq!(fixture.health.problems().len(), 1);
        pass(11).await;
        fixture.rests.expire();
        assert_eq!(fixture.health.problems().len(), 0);
        fixture.fail("1");
        fixture.rests.end_all();
        assert_eq!((fixture.left("1"), fixture.health.problems().len()), (None, 0));
    }
}
