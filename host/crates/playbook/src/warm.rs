//! Warm starts: the pool of controllers, which are processes that have imported Ansible.
//!
//! A small playbook spends most of its time on importing Ansible. A controller (`controller.py`) imports
//! Ansible once and then forks a process for each run, one run at a time. The controller is in the same
//! sandbox as its runs, so it only serves runs with equal grants, environment and configuration. After each
//! run the controller kills all processes that the run left behind, and the daemon empties the folder. A
//! controller that fails is ended. If it had not forked the run yet, the run is started cold: as a new
//! process of `ansible-playbook`. A warm start gives a run no other rights or results than a cold start.

mod controller;
mod protocol;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::settings::Settings;

pub(crate) use controller::{Controller, Ran, Reuse};

/// The default maximum number of runs of one controller. This number limits the effect of a memory leak.
const MAX_RUNS: u32 = 200;
/// The default time after which an idle controller is ended. A controller is started for a run only if the
/// previous run with the same key began within this time.
const IDLE_TIMEOUT: Duration = Duration::from_mins(10);
/// The time for which no controller is started after a failed start.
const PAUSE: Duration = Duration::from_mins(1);
/// The number of remembered keys above which old keys are removed.
const MAX_LAST_RUNS: usize = 1000;

/// The pool of idle controllers.
#[derive(Debug)]
pub(crate) struct Controllers {
    idle: Mutex<Vec<Controller>>,
    /// The time of the last run of each key.
    last_runs: Mutex<HashMap<String, Instant>>,
    next_number: AtomicU32,
    /// The maximum number of idle controllers. 0 after [`Self::close`].
    capacity: AtomicUsize,
    max_runs: u32,
    idle_timeout: Duration,
    paused_until: Mutex<Option<Instant>>,
}

impl Controllers {
    /// Creates an empty pool.
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

    /// Prevents new controllers for one minute. Called after a failed start.
    pub(crate) fn pause(&self) {
        *lock(&self.paused_until) = Some(Instant::now() + PAUSE);
    }

    /// Returns whether new controllers are prevented: the pool is paused or closed.
    pub(crate) fn is_paused(&self) -> bool {
        let is_closed = self.capacity.load(Ordering::Relaxed) == 0;
        is_closed || lock(&self.paused_until).is_some_and(|until| Instant::now() < until)
    }

    /// Ends all idle controllers and closes the pool. A closed pool prevents new controllers and keeps no
    /// idle ones. Returns whether the pool was open.
    pub(crate) async fn close(&self) -> bool {
        let was_open = self.capacity.swap(0, Ordering::Relaxed) > 0;
        let all = std::mem::take(&mut *lock(&self.idle));
        for controller in all {
            controller.end().await;
        }
        was_open
    }

    /// Returns an unused name for the folder of a new controller.
    pub(crate) fn next_name(&self) -> String {
        format!("warm-{}", self.next_number.fetch_add(1, Ordering::Relaxed))
    }

    /// Takes an idle controller with this key from the pool. Ends expired and outdated controllers first.
    pub(crate) async fn take(&self, key: &str) -> Option<Controller> {
        self.expire().await;
        let mut idle = lock(&self.idle);
        let index = idle.iter().rposition(|controller| controller.key() == key)?;
        Some(idle.swap_remove(index))
    }

    /// Records a run with this key. Returns whether the previous run with the key was recent, so that
    /// starting a controller is worth its cost.
    pub(crate) fn is_frequent(&self, key: &str) -> bool {
        let mut last_runs = lock(&self.last_runs);
        if last_runs.len() > MAX_LAST_RUNS {
            last_runs.retain(|_, last| last.elapsed() < self.idle_timeout);
        }
        let last = last_runs.insert(key.to_owned(), Instant::now());
        last.is_some_and(|last| last.elapsed() < self.idle_timeout)
    }

    /// Puts a controller into the pool, or ends it if it has served its maximum number of runs. If the pool
    /// then has too many controllers, ends the one that has been idle for the longest time.
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

    /// Ends each idle controller that exceeds the idle timeout or is out of date.
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
        Controllers::new(&Settings::new("state".into(), "runs"))
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
