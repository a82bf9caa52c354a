//! What becomes of a delivery.
//!
//! Owns the decision. Does not carry it out (the queue does) and does not know how the task ran.
//! Before it on the path of a message: `Runner::run`. After it: `Journal::record`.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::Deserialize;

use crate::{Outcome, Reason};

/// What becomes of a delivery after one attempt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Settlement {
    /// The message is done with and leaves the queue.
    Ack,
    /// The message comes back after a pause, as the next attempt.
    Retry { after: Duration },
    /// The message is set aside for a person to look at.
    DeadLetter { reason: Reason },
    /// The message goes back untouched: the attempt does not count.
    GiveBack,
}

/// How often a failed message is tried again.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryPolicy {
    /// How many attempts a message has before it is set aside. Default 3.
    pub max_attempts: NonZeroU32,
}

impl RetryPolicy {
    /// Tells why an attempt may not even start: the last one was started and never settled, because
    /// the process that ran it ended, or its connection to the broker.
    pub fn refuse(&self, attempt: u32) -> Option<Reason> {
        let max = self.max_attempts;
        let reason = || format!("attempt {max} of {max} was started and never settled").into();
        (attempt > max.get()).then(reason)
    }

    /// Decides what becomes of a delivery whose attempt, counted from 1, had this outcome.
    pub fn decide(&self, outcome: &Outcome, attempt: u32) -> Settlement {
        match outcome {
            Outcome::Success => Settlement::Ack,
            Outcome::Cancelled => Settlement::GiveBack,
            Outcome::Reject { .. } => Settlement::DeadLetter { reason: outcome.to_string().into() },
            // The queue counts the attempts, so a crash of ours cannot set them back.
            _ if attempt >= self.max_attempts.get() => Settlement::DeadLetter {
                reason: format!("{outcome} (attempt {attempt}, the last)").into(),
            },
            _ => Settlement::Retry { after: Duration::ZERO },
        }
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max_attempts: NonZeroU32::new(3).expect("three is not zero") }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(outcome: Outcome, attempt: u32, expected: Settlement) {
        assert_eq!(RetryPolicy::default().decide(&outcome, attempt), expected);
    }

    fn failure() -> Outcome {
        Outcome::Retry { reason: "koji is away".into() }
    }

    #[test]
    fn success_is_acknowledged() {
        check(Outcome::Success, 1, Settlement::Ack);
        check(Outcome::Success, 99, Settlement::Ack);
    }

    #[test]
    fn a_failure_comes_back_until_the_last_attempt() {
        check(failure(), 1, Settlement::Retry { after: Duration::ZERO });
        check(failure(), 2, Settlement::Retry { after: Duration::ZERO });
        let reason = "retry: koji is away (attempt 3, the last)".into();
        check(failure(), 3, Settlement::DeadLetter { reason });
    }

    #[test]
    fn a_rejected_message_is_set_aside_at_once() {
        let reason = "reject: no package".into();
        check(
            Outcome::Reject { reason: "no package".into() },
            1,
            Settlement::DeadLetter { reason },
        );
    }

    #[test]
    fn a_cancelled_run_costs_no_attempt() {
        check(Outcome::Cancelled, 3, Settlement::GiveBack);
    }

    #[test]
    fn an_attempt_past_the_last_does_not_start() {
        assert_eq!(RetryPolicy::default().refuse(3), None);
        let reason = RetryPolicy::default().refuse(4).unwrap();
        assert_eq!(reason.as_str(), "attempt 3 of 3 was started and never settled");
    }

    proptest! {
        #[test]
        fn no_failure_is_tried_for_ever(max in 1_u32..20, attempt in 1_u32..40) {
            let policy = RetryPolicy { max_attempts: NonZeroU32::new(max).unwrap() };
            let comes_back = policy.decide(&failure(), attempt) == Settlement::Retry { after: Duration::ZERO };
            prop_assert_eq!(comes_back, attempt < max);
        }
    }
}
