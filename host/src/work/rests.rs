//! Rests of tasks whose files or grants cannot be used.
//!
//! A run of such a task ends before it starts. So the task rests for a while, and only one of its
//! entries is tried after each rest. Rests get longer, up to [`LONGEST`]. They end with a run that
//! starts, and with a reload of the tasks. `/readyz` reports the reason. This module does not know how
//! entries are settled.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use loopabull_model::{Reason, TaskName};
use parking_lot::Mutex;

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
#[derive(Clone, Copy, Debug)]
struct Rest {
    until: Instant,
    length: Duration,
}

impl Rests {
    pub(crate) fn new(health: Arc<Health>) -> Self {
        Self { by_task: Mutex::default(), health }
    }

    /// Begins a rest of a task, twice as long as the previous one.
    pub(crate) fn begin(&self, task: &TaskName, reason: &Reason) {
        let mut by_task = self.by_task.lock();
        let previous = by_task.get(task).map(|rest| rest.length);
        let length = previous.map_or(FIRST, |length| (length * 2).min(LONGEST));
        by_task.insert(task.clone(), Rest { until: Instant::now() + length, length });
        self.health.report(Part::TaskStart(task.clone()), reason);
    }

    /// Ends the rests of a task.
    pub(crate) fn end(&self, task: &TaskName) {
        if self.by_task.lock().remove(task).is_some() {
            self.health.resolve(&Part::TaskStart(task.clone()));
        }
    }

    /// Ends the rests of all tasks.
    pub(crate) fn end_all(&self) {
        for task in std::mem::take(&mut *self.by_task.lock()).into_keys() {
            self.health.resolve(&Part::TaskStart(task));
        }
    }

    /// Returns how long a task still rests. If its rest is over, the caller tries one entry, and the task
    /// rests for its other entries in the meantime.
    pub(crate) fn left(&self, task: &TaskName) -> Option<Duration> {
        let mut by_task = self.by_task.lock();
        let rest = by_task.get_mut(task)?;
        let now = Instant::now();
        let left = rest.until.saturating_duration_since(now);
        if left.is_zero() {
            rest.until = now + rest.length;
            return None;
        }
        Some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_rests_longer_each_time_and_tries_one_entry_in_between() {
        let health = Arc::new(Health::default());
        let rests = Rests::new(Arc::clone(&health));
        let task: TaskName = "a".try_into().unwrap();
        assert_eq!(rests.left(&task), None);
        for _ in 0..10 {
            rests.begin(&task, &"no such directory".into());
        }
        assert!(rests.left(&task).is_some_and(|left| left > LONGEST / 2));
        assert_eq!(health.problems(), ["start of task `a`: no such directory"]);
        rests.by_task.lock().get_mut(&task).unwrap().until = Instant::now();
        assert_eq!(rests.left(&task), None);
        assert!(rests.left(&task).is_some(), "only one entry is tried");
        rests.end(&task);
        assert_eq!((rests.left(&task), health.problems().len()), (None, 0));
        rests.begin(&task, &"x".into());
        rests.end_all();
        assert_eq!((rests.left(&task), health.problems().len()), (None, 0));
    }
}
