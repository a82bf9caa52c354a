//! Warm starts: the pool of processes that keep Ansible imported and fork for each run.
//!
//! Importing Ansible is most of the cost of a small playbook. A controller (`controller.py`) is started
//! once, in the same confinement as the runs that it forks, and has one run at a time. It serves one
//! set of grants, environment and configuration; its folder is emptied between runs, and it kills
//! everything that a run leaves behind. If anything is wrong with a controller, it is ended and the run
//! is a cold one: controllers make runs faster and change nothing else.

mod controller;
mod protocol;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::settings::Settings;

pub(crate) use controller::{Controller, Ran, Reuse};

/// The default maximum of runs of one controller, so that a leak in a library stays small.
const MAX_RUNS: u32 = 200;
/// By default, how long a controller waits for another run before it is ended, and how long a task
/// counts as one that is run frequently.
const IDLE_TIMEOUT: Duration = Duration::from_mins(10);
/// How long no controller is started after one could not be started.
const PAUSE: Duration = Duration::from_mins(1);
/// How many keys of single runs are remembered before old ones are removed.
const MAX_LAST_RUNS: usize = 1000;

/// The controllers that wait for a run.
#[derive(Debug)]
pub(crate) struct Controllers {
    idle: Mutex<Vec<Controller>>,
    /// When something was last run, by its key.
    last_runs: Mutex<HashMap<String, Instant>>,
    next_number: AtomicU32,
    /// How many controllers may wait. 0 after [`Self::close`].
    capacity: AtomicUsize,
    max_runs: u32,
    idle_timeout: Duration,
    paused_until: Mutex<Option<Instant>>,
}

impl Controllers {
    /// Makes an empty pool.
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            idle: Mutex::default(),
            last_runs: Mutex::default(),
            next_number: AtomicU32::new(1),
            capacity: AtomicUsize::new(settings.slots),
            max_runs: settings.controller_runs.unwrap_or(MAX_RUNS),
            idle_timeout: settings.controller_idle.unwrap_or(IDLE_TIMEOUT),
            paused_until: Mutex::default(),
        }
    }

    /// Lets no controller be started for a while, after one could not be started.
    pub(crate) fn pause(&self) {
        *lock(&self.paused_until) = Some(Instant::now() + PAUSE);
    }

    /// Tells whether no controller is to be started, for now or ever again.
    pub(crate) fn is_paused(&self) -> bool {
        let is_closed = self.capacity.load(Ordering::Relaxed) == 0;
        is_closed || lock(&self.paused_until).is_some_and(|until| Instant::now() < until)
    }

    /// Ends all controllers that wait. From now on none is started and none waits.
    pub(crate) async fn close(&self) {
        self.capacity.store(0, Ordering::Relaxed);
        let all = std::mem::take(&mut *lock(&self.idle));
        for controller in all {
            controller.end().await;
        }
    }

    /// Returns a name for the folder of another controller.
    pub(crate) fn next_name(&self) -> String {
        format!("warm-{}", self.next_number.fetch_add(1, Ordering::Relaxed))
    }

    /// Takes a controller that waits, has this key and is not out of date.
    pub(crate) async fn take(&self, key: &str) -> Option<Controller> {
        self.expire().await;
        let mut idle = lock(&self.idle);
        let index = idle.iter().rposition(|controller| controller.key() == key)?;
        Some(idle.swap_remove(index))
    }

    /// Notes a run with this key. Tells whether there was one recently, so that a controller pays.
    pub(crate) fn is_frequent(&self, key: &str) -> bool {
        let mut last_runs = lock(&self.last_runs);
        if last_runs.len() > MAX_LAST_RUNS {
            last_runs.retain(|_, last| last.elapsed() < self.idle_timeout);
        }
        let last = last_runs.insert(key.to_owned(), Instant::now());
        last.is_some_and(|last| last.elapsed() < self.idle_timeout)
    }

    /// Lets a controller wait for another run, unless it has reached its maximum. If too many wait then,
    /// the one that waits longest is ended.
    pub(crate) async fn put(&self, mut controller: Controller) {
        if controller.runs() >= self.max_runs {
            return controller.end().await;
        }
        controller.start_idle();
        let excess = {
            let mut idle = lock(&self.idle);
            idle.push(controller);
            let oldest = idle.iter().enumerate().min_by_key(|(_, one)| one.idle_since());
            let oldest = oldest
                .map(|(index, _)| index)
                .filter(|_| idle.len() > self.capacity.load(Ordering::Relaxed));
            oldest.map(|index| idle.swap_remove(index))
        };
        if let Some(controller) = excess {
            controller.end().await;
        }
    }

    /// Ends the controllers that waited too long or are out of date.
    pub(crate) async fn expire(&self) {
        let is_expired = |one: &mut Controller| {
            one.idle_since().elapsed() >= self.idle_timeout || one.is_outdated()
        };
        let expired: Vec<_> = lock(&self.idle).extract_if(.., is_expired).collect();
        for controller in expired {
            controller.end().await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controllers() -> Controllers {
        Controllers::new(&Settings::new("playbooks".into(), "state".into(), "runs"))
    }

    #[test]
    fn a_second_run_within_the_idle_timeout_is_frequent() {
        let controllers = controllers();
        assert!(!controllers.is_frequent("a"));
        assert!(controllers.is_frequent("a"));
        assert!(!controllers.is_frequent("b"));
    }

    #[tokio::test]
    async fn a_closed_pool_starts_no_controller() {
        let controllers = controllers();
        assert!(!controllers.is_paused());
        controllers.close().await;
        assert!(controllers.is_paused());
    }

    #[test]
    fn no_controller_is_started_right_after_one_could_not_be() {
        let controllers = controllers();
        controllers.pause();
        assert!(controllers.is_paused());
    }
}
