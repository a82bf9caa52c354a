//! The moments at which the fault of a round strikes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::chance::Chance;

/// The maximum delay in milliseconds between the start of the task that was drawn and the fault.
const LATER: u64 = 60;
/// The interval between the faults of [`Moments::EverySecond`].
const SECOND: Duration = Duration::from_secs(1);

/// The moments of the faults of a round.
#[derive(Debug)]
pub(super) enum Moments {
    /// Each fault strikes after a number of task starts that was drawn at random.
    Drawn { chance: Chance, left: VecDeque<u64> },
    /// A fault strikes every second until `until` tasks have been started.
    EverySecond { last: Instant, until: u64 },
}

impl Moments {
    /// Draws `count` moments at random for a round with `tasks` tasks. Each moment is the start of one of
    /// these tasks.
    pub(super) fn draw(seed: u64, count: usize, tasks: u64) -> Self {
        let mut chance = Chance::new(seed);
        let left = chance.row(count, last(tasks)).into();
        Self::Drawn { chance, left }
    }

    /// Returns a moment for every second of a round with this number of tasks.
    pub(super) fn every_second(tasks: u64) -> Self {
        Self::EverySecond { last: Instant::now(), until: last(tasks) }
    }

    /// Returns whether all faults have struck, given that `started` tasks have been started.
    pub(super) fn are_over(&self, started: u64) -> bool {
        match self {
            Self::Drawn { left, .. } => left.is_empty(),
            Self::EverySecond { until, .. } => started >= *until,
        }
    }

    /// Removes the next moment if it has been reached, and returns the delay until its fault strikes.
    pub(super) fn take(&mut self, started: u64) -> Option<Duration> {
        match self {
            Self::Drawn { chance, left } => {
                left.pop_front_if(|moment| started >= *moment)?;
                Some(Duration::from_millis(chance.below(LATER)))
            }
            Self::EverySecond { last, until } => {
                let is_due = started < *until && last.elapsed() >= SECOND;
                is_due.then(|| *last = Instant::now()).map(|()| Duration::ZERO)
            }
        }
    }
}

/// Returns the latest possible moment of a fault, as a number of started tasks. A tenth of the tasks starts
/// after this moment, so that even the last fault can affect some tasks.
fn last(tasks: u64) -> u64 {
    (tasks * 9 / 10).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_drawn_moment_is_taken_once() {
        let mut moments = Moments::draw(1, 3, 100);
        assert!(!moments.are_over(0) && moments.take(0).is_none());
        for _ in 0..3 {
            assert!(!moments.are_over(100));
            assert!(moments.take(100).is_some_and(|later| later < Duration::from_millis(LATER)));
        }
        assert!(moments.are_over(100) && moments.take(100).is_none());
    }

    #[test]
    fn faults_of_every_second_end_before_the_last_tasks() {
        let mut moments = Moments::every_second(100);
        assert!(moments.take(0).is_none(), "a second has not passed");
        assert!(!moments.are_over(89) && moments.are_over(90));
    }
}
