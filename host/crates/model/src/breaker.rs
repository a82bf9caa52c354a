//! The circuit breaker of a task, which pauses the task after repeated failures.
//!
//! Counts the failures of the task and decides when they are too many. The host stores the pause. This module
//! has no clock: the caller passes the time of each outcome.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Deserialize;

use crate::Outcome;
use crate::duration::duration;

/// The policy of a circuit breaker: the failures that pause a task automatically.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerPolicy {
    /// Number of consecutive failures that pause the task. 0 switches the breaker off. Default: 10.
    pub failures: u32,
    /// Time window. The task is paused only if all these failures happen within the window. Default: 10 min.
    #[serde(deserialize_with = "duration")]
    pub window: Duration,
}

/// The consecutive failures of one task.
#[derive(Debug, Default)]
pub struct Breaker {
    /// Times of the newest failures. The caller chooses the moment from which they are measured, which must
    /// always be the same.
    failures: VecDeque<Duration>,
}

impl Breaker {
    /// Counts the outcome of a run. Returns true if the task must be paused now. A success sets the count to
    /// zero. An outcome that is neither a success nor a failure, such as a rejected message, does not change
    /// the count.
    pub fn count(&mut self, policy: &BreakerPolicy, outcome: &Outcome, now: Duration) -> bool {
        if outcome.is_success() {
            self.failures.clear();
        }
        if !outcome.is_failure() || policy.failures == 0 {
            return false;
        }
        self.failures.push_back(now);
        let limit = usize::try_from(policy.failures).unwrap_or(usize::MAX);
        if self.failures.len() > limit {
            self.failures.pop_front();
        }
        let since = self.failures.front().map(|first| now.saturating_sub(*first));
        let is_tripped =
            self.failures.len() == limit && since.is_some_and(|since| since <= policy.window);
        if is_tripped {
            self.failures.clear();
        }
        is_tripped
    }
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self { failures: 10, window: Duration::from_mins(10) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks after which outcomes the breaker trips. Each letter is one outcome, one second after the
    /// previous one: `x` is a failure, `.` a success, `r` a rejected message.
    fn check(failures: u32, window: u64, outcomes: &str, expected: &[usize]) {
        let policy = BreakerPolicy { failures, window: Duration::from_secs(window) };
        let mut breaker = Breaker::default();
        let mut tripped = Vec::new();
        for (index, letter) in outcomes.chars().enumerate() {
            let outcome = match letter {
                'x' => Outcome::Trap { reason: "x".into() },
                'r' => Outcome::Reject { reason: "x".into() },
                _ => Outcome::Success,
            };
            if breaker.count(&policy, &outcome, Duration::from_secs(index as u64)) {
                tripped.push(index);
            }
        }
        assert_eq!(tripped, expected, "{outcomes}");
    }

    #[test]
    fn failures_in_a_row_trip_it() {
        check(3, 60, "xxx", &[2]);
        check(3, 60, "xx.xx.xxx", &[8]);
        check(3, 60, "xxxxxx", &[2, 5]);
    }

    #[test]
    fn a_rejected_message_neither_counts_nor_clears() {
        check(2, 60, "xrx", &[2]);
        check(2, 60, "rrrr", &[]);
    }

    #[test]
    fn failures_far_apart_do_not_trip_it() {
        check(3, 1, "xxxxxx", &[]);
    }

    #[test]
    fn it_can_be_switched_off() {
        check(0, 60, "xxxxxx", &[]);
    }
}
