//! The circuit breaker of a task, which pauses the task after repeated failures.
//!
//! A closed breaker counts the failures of the task. When they are too many, it opens: no message is tried.
//! After a while it is half-open: one message is tried, as a trial. If the trial succeeds, the breaker closes.
//! If it fails, the breaker opens again, for twice as long.
//!
//! The host stores the pause. This module has no clock: the caller passes the time.

use std::collections::VecDeque;
use std::time::Duration;

use crate::{BreakerPolicy, EntryId, Outcome};

/// The circuit breaker of one task. All times are measured from one moment, which the caller chooses.
#[derive(Debug, Default)]
pub struct Breaker {
    /// Times of the newest consecutive failures.
    failures: VecDeque<Duration>,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Closed,
    Open {
        until: Duration,
        pause: Duration,
    },
    HalfOpen {
        pause: Duration,
        /// The entry that is tried.
        trial: Option<EntryId>,
        /// Time at which a trial was last asked for.
        asked: Option<Duration>,
    },
}

/// The effect of an outcome on the breaker.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BreakerChange {
    None,
    /// The breaker opened, because of too many failures or because a trial failed. One message is tried after the
    /// pause.
    Opened {
        pause: Duration,
        was_trial: bool,
    },
    /// The trial succeeded, and the breaker closed.
    Closed,
}

impl Breaker {
    /// The maximum pause.
    const MAX_PAUSE: Duration = Duration::from_hours(1);
    /// Time after which a trial is asked for again, if no entry came.
    const ASK_INTERVAL: Duration = Duration::from_secs(10);

    /// Returns whether an entry may run now. If the breaker is half-open, the entry becomes the trial.
    pub fn admit(&mut self, entry: &EntryId, now: Duration) -> bool {
        self.update(now);
        match &mut self.state {
            State::Closed => true,
            State::Open { .. } => false,
            State::HalfOpen { trial, .. } => trial.get_or_insert_with(|| entry.clone()) == entry,
        }
    }

    /// Returns whether the breaker is closed.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Returns whether the caller should provide one entry as a trial. After a positive answer, the next one
    /// follows after ten seconds at the earliest.
    pub fn asks_for_trial(&mut self, now: Duration) -> bool {
        self.update(now);
        let State::HalfOpen { trial: None, asked, .. } = &mut self.state else { return false };
        let is_time = asked.is_none_or(|asked| now.saturating_sub(asked) >= Self::ASK_INTERVAL);
        if is_time {
            *asked = Some(now);
        }
        is_time
    }

    /// Notes that an entry is not tried any more. If it was the trial and had no outcome that counts, another
    /// entry can be the trial.
    pub fn give_up(&mut self, entry: &EntryId) {
        if let State::HalfOpen { trial, asked, .. } = &mut self.state
            && trial.as_ref() == Some(entry)
        {
            (*trial, *asked) = (None, None);
        }
    }

    /// Counts the outcome of the run of an entry. A success sets the count of failures to zero. An outcome that
    /// is neither a success nor a failure, such as a rejected message, does not change the count; as the outcome
    /// of a trial, a rejected message shows that the task works.
    pub fn count(
        &mut self,
        policy: &BreakerPolicy,
        entry: &EntryId,
        outcome: &Outcome,
        now: Duration,
    ) -> BreakerChange {
        if policy.failures == 0 {
            // The operator has switched the breaker off.
            let was_closed = std::mem::take(self).is_closed();
            return if was_closed { BreakerChange::None } else { BreakerChange::Closed };
        }
        if let State::HalfOpen { pause, trial: Some(trial), .. } = &self.state
            && trial == entry
        {
            let pause = *pause;
            return match outcome {
                Outcome::Success | Outcome::Reject { .. } => {
                    *self = Self::default();
                    BreakerChange::Closed
                }
                // An operator who cancels the trial does not trust the task yet.
                outcome if outcome.is_failure() || matches!(outcome, Outcome::Aborted { .. }) => {
                    self.open((pause * 2).min(Self::MAX_PAUSE.max(policy.pause)), true, now)
                }
                _ => BreakerChange::None,
            };
        }
        if outcome.is_success() {
            self.failures.clear();
        }
        // A run that began before the breaker opened does not open it again.
        if !outcome.is_failure() || !self.is_closed() {
            return BreakerChange::None;
        }
        self.failures.push_back(now);
        let limit = usize::try_from(policy.failures).unwrap_or(usize::MAX);
        if self.failures.len() > limit {
            self.failures.pop_front();
        }
        let since = self.failures.front().map(|first| now.saturating_sub(*first));
        let is_tripped =
            self.failures.len() == limit && since.is_some_and(|since| since <= policy.window);
        if is_tripped { self.open(policy.pause, false, now) } else { BreakerChange::None }
    }

    /// Opens the breaker for a pause that an earlier process began.
    pub fn restore(&mut self, policy: &BreakerPolicy, now: Duration) {
        if self.is_closed() {
            self.open(policy.pause, false, now);
        }
    }

    /// Ends the waiting of an open breaker, because an operator resumed the task. One entry is tried now.
    pub fn resume(&mut self) {
        if let State::Open { pause, .. } = self.state {
            self.state = State::HalfOpen { pause, trial: None, asked: None };
        }
    }

    fn open(&mut self, pause: Duration, was_trial: bool, now: Duration) -> BreakerChange {
        self.failures.clear();
        self.state = State::Open { until: now.saturating_add(pause), pause };
        BreakerChange::Opened { pause, was_trial }
    }

    fn update(&mut self, now: Duration) {
        if let State::Open { until, .. } = self.state
            && until <= now
        {
            self.resume();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn trap() -> Outcome {
        Outcome::Trap { reason: "x".into() }
    }

    /// Checks after which outcomes the breaker opens. Each letter is one outcome, one second after the
    /// previous one: `x` is a failure, `.` a success, `r` a rejected message, `a` a run that an operator cancelled.
    fn check(failures: u32, window: u64, outcomes: &str, expected: Option<usize>) {
        let policy = BreakerPolicy { failures, window: seconds(window), ..Default::default() };
        let mut breaker = Breaker::default();
        let mut opened = None;
        for (index, letter) in outcomes.chars().enumerate() {
            let outcome = match letter {
                'x' => trap(),
                'r' => Outcome::Reject { reason: "x".into() },
                'a' => Outcome::Aborted { reason: "x".into() },
                _ => Outcome::Success,
            };
            let entry = EntryId::new(index.to_string());
            let change = breaker.count(&policy, &entry, &outcome, seconds(index as u64));
            if matches!(change, BreakerChange::Opened { .. }) {
                assert_eq!(opened.replace(index), None, "an open breaker opens again");
            }
        }
        assert_eq!(opened, expected, "{outcomes}");
    }

    #[test]
    fn failures_in_a_row_open_it() {
        check(3, 60, "xxx", Some(2));
        check(3, 60, "xx.xx.xxx", Some(8));
        // Runs that began before it opened do not open it again.
        check(3, 60, "xxxxxxx", Some(2));
    }

    #[test]
    fn a_rejected_message_neither_counts_nor_clears() {
        check(2, 60, "xrx", Some(2));
        check(2, 60, "rrrr", None);
    }

    #[test]
    fn a_run_that_an_operator_cancelled_neither_counts_nor_clears() {
        check(2, 60, "xax", Some(2));
        check(2, 60, "aaaa", None);
    }

    #[test]
    fn a_trial_that_an_operator_cancelled_proves_nothing() {
        let policy = BreakerPolicy { failures: 1, ..Default::default() };
        let (entry, mut breaker) = (EntryId::new("1"), Breaker::default());
        breaker.count(&policy, &entry, &trap(), seconds(0));
        let now = policy.pause + seconds(1);
        assert!(breaker.asks_for_trial(now) && breaker.admit(&entry, now));
        let aborted = Outcome::Aborted { reason: "x".into() };
        let change = breaker.count(&policy, &entry, &aborted, now);
        assert!(matches!(change, BreakerChange::Opened { was_trial: true, .. }), "{change:?}");
    }

    #[test]
    fn failures_far_apart_do_not_open_it() {
        check(3, 1, "xxxxxx", None);
    }

    #[test]
    fn it_can_be_switched_off() {
        check(0, 60, "xxxxxx", None);
    }

    #[test]
    fn it_tries_one_entry_after_pauses_that_double() {
        let policy = BreakerPolicy { failures: 1, ..Default::default() };
        let (one, other) = (EntryId::new("1"), EntryId::new("2"));
        let mut breaker = Breaker::default();
        let mut now = seconds(7);
        assert!(breaker.admit(&one, now));
        let mut change = breaker.count(&policy, &one, &trap(), now);
        for minutes in [1, 2, 4, 8, 16, 32, 60, 60] {
            let pause = Duration::from_mins(minutes);
            let was_trial = minutes > 1;
            assert_eq!(change, BreakerChange::Opened { pause, was_trial });
            now += pause - seconds(1);
            assert!(!breaker.admit(&one, now) && !breaker.asks_for_trial(now));
            now += seconds(1);
            assert!(breaker.asks_for_trial(now) && !breaker.asks_for_trial(now));
            assert!(breaker.admit(&one, now));
            assert!(!breaker.admit(&other, now), "only one entry is tried");
            assert!(breaker.admit(&one, now));
            // The trial was not run, for example because the machine was short of something.
            breaker.give_up(&other);
            assert!(!breaker.admit(&other, now));
            breaker.give_up(&one);
            assert!(breaker.asks_for_trial(now) && breaker.admit(&other, now));
            assert_eq!(breaker.count(&policy, &one, &trap(), now), BreakerChange::None);
            change = breaker.count(&policy, &other, &trap(), now);
        }
        breaker.resume();
        assert!(breaker.admit(&one, now) && !breaker.is_closed());
        let change = breaker.count(&policy, &one, &Outcome::Success, now);
        assert_eq!((change, breaker.is_closed()), (BreakerChange::Closed, true));
        assert!(breaker.admit(&one, now) && breaker.admit(&other, now));
    }

    #[test]
    fn a_pause_of_an_earlier_process_goes_on() {
        let policy = BreakerPolicy::default();
        let mut breaker = Breaker::default();
        breaker.restore(&policy, seconds(5));
        breaker.restore(&policy, seconds(30));
        assert!(!breaker.admit(&EntryId::new("1"), seconds(64)));
        assert!(breaker.admit(&EntryId::new("1"), seconds(65)));
    }
}
