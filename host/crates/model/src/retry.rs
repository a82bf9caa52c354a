//! The retry policy of a task: whether and after what delay a failed message is retried.
//!
//! The policy decides the settlement of a delivery from the outcome and the number of its attempt. The worker
//! then settles the delivery. This module has no clock and makes no random numbers: the caller passes the
//! random number for the jitter of the delay.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::{Outcome, Reason, Settlement};

/// The maximum jitter, as a fraction of the configured delay. The jitter makes each delay longer by a random
/// part of this fraction. So messages that failed at the same time are not redelivered at the same time.
pub const JITTER: f64 = 0.2;

/// The minimum delay after a run that could not start and does not count. The maximum is twice as long.
const UNAVAILABLE_DELAY: Duration = Duration::from_secs(10);

/// The policy for messages on which a task fails.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryPolicy {
    /// Reaction to a failed attempt. Default: retry.
    pub on_failure: OnFailure,
    /// Number of attempts before a message is dead-lettered, at most 50. Default: one more than the number of
    /// `pauses`.
    #[serde(deserialize_with = "attempts")]
    max_attempts: Option<NonZeroU32>,
    /// Delays after the first, the second … attempt. The last delay is used for all further attempts.
    /// Default: 10 s, 1 min, 10 min, 1 h.
    #[serde(deserialize_with = "pauses")]
    pauses: Vec<Duration>,
}

/// The reaction to a failed attempt.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// Retry the message after a delay. Dead-letter the message after the last attempt.
    #[default]
    Retry,
    /// Dead-letter the message at once.
    DeadLetter,
    /// Dead-letter the message at once, and pause the worker that ran the task until an operator resumes it.
    StopWorker,
}

impl RetryPolicy {
    /// The maximum number of attempts of a message.
    pub const MAX_ATTEMPTS: u32 = 50;
    /// The number of daemon crashes during runs of an entry after which the entry is refused.
    pub const MAX_CRASHES: u32 = 3;
    /// The minimum delay before a retry.
    pub const MIN_DELAY: Duration = Duration::from_millis(100);
    /// The maximum delay before a retry, without the jitter. If the task asks for a longer delay, this
    /// maximum applies.
    pub const MAX_DELAY: Duration = Duration::from_hours(7 * 24);

    /// Returns the number of attempts that a message gets.
    pub fn max_attempts(&self) -> u32 {
        let by_pauses = u32::try_from(self.pauses.len()).unwrap_or(u32::MAX).saturating_add(1);
        self.max_attempts.map_or(by_pauses.min(Self::MAX_ATTEMPTS), NonZeroU32::get)
    }

    /// Returns a reason if an attempt must not start. This is so if the daemon died during
    /// [`RetryPolicy::MAX_CRASHES`] runs of the entry, or if the attempts are already used up because an
    /// earlier policy allowed more.
    ///
    /// `crashes` counts the runs during which the daemon died. Such runs are not counted as attempts, because
    /// most of them did not cause the crash.
    pub fn refuse(&self, attempt: u32, crashes: u32) -> Option<Reason> {
        let max = self.max_attempts();
        if crashes >= Self::MAX_CRASHES {
            return Some(
                format!("the daemon died {crashes} times during a run of this entry").into(),
            );
        }
        (attempt > max).then(|| format!("all {max} attempts of this entry are used").into())
    }

    /// Decides the settlement of a delivery from the outcome of its attempt. Attempts are counted from 1.
    /// `chance` is a random number from 0 to 1. It makes the delay of a retry longer by up to [`JITTER`], and
    /// the delay after a conflict up to twice as long.
    pub fn decide(&self, outcome: &Outcome, attempt: u32, chance: f64) -> Settlement {
        match outcome {
            Outcome::Success => Settlement::Ack,
            Outcome::Cancelled => Settlement::Requeue { after: Duration::ZERO },
            // The delay is random, so that two runs in conflict do not start again at the same moment.
            Outcome::Conflict { .. } => {
                let after = Self::MIN_DELAY.mul_f64(1.0 + chance.clamp(0.0, 1.0));
                Settlement::Requeue { after }
            }
            Outcome::Shortage { .. } | Outcome::Unavailable { .. } => Settlement::Requeue {
                after: UNAVAILABLE_DELAY.mul_f64(1.0 + chance.clamp(0.0, 1.0)),
            },
            Outcome::Reject { .. }
            | Outcome::Refused { .. }
            | Outcome::Unreadable { .. }
            | Outcome::Aborted { .. } => Settlement::dead_letter(outcome.to_string()),
            _ if self.on_failure != OnFailure::Retry => Settlement::dead_letter(format!(
                "{outcome} (attempt {attempt}; the retry policy allows no retry)"
            )),
            _ if attempt >= self.max_attempts() => {
                Settlement::dead_letter(format!("{outcome} (attempt {attempt}, the last)"))
            }
            _ => Settlement::Retry { after: self.pause(outcome, attempt, chance) },
        }
    }

    /// Returns true if the worker must be paused after this outcome.
    pub fn stops_worker(&self, outcome: &Outcome) -> bool {
        self.on_failure == OnFailure::StopWorker && outcome.is_failure()
    }

    fn pause(&self, outcome: &Outcome, attempt: u32, chance: f64) -> Duration {
        let step = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
        let configured = self.pauses.get(step).or(self.pauses.last()).copied();
        let asked = match outcome {
            Outcome::Retry { after, .. } => *after,
            _ => None,
        };
        let pause = asked.or(configured).unwrap_or(Self::MIN_DELAY);
        let pause = pause.clamp(Self::MIN_DELAY, Self::MAX_DELAY);
        pause.mul_f64(1.0 + JITTER * chance.clamp(0.0, 1.0)).min(Self::MAX_DELAY)
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        let pauses = [10, 60, 600, 3600].map(Duration::from_secs).to_vec();
        Self { on_failure: OnFailure::default(), max_attempts: None, pauses }
    }
}

fn attempts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU32>, D::Error> {
    let attempts = NonZeroU32::deserialize(deserializer)?;
    let limit = RetryPolicy::MAX_ATTEMPTS;
    if attempts.get() > limit {
        let reason = format!("max_attempts must be 1 to {limit}, not {attempts}");
        return Err(serde::de::Error::custom(reason));
    }
    Ok(Some(attempts))
}

fn pauses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Duration>, D::Error> {
    use serde::de::Error;
    let texts = Vec::<String>::deserialize(deserializer)?;
    let (shortest, longest) = (RetryPolicy::MIN_DELAY, RetryPolicy::MAX_DELAY);
    let pause = |text: &String| {
        let pause = humantime::parse_duration(text).map_err(D::Error::custom)?;
        if (shortest..=longest).contains(&pause) {
            return Ok(pause);
        }
        let (shortest, longest) =
            (humantime::format_duration(shortest), humantime::format_duration(longest));
        Err(D::Error::custom(format!("a pause must be {shortest} to {longest}, not `{text}`")))
    };
    texts.iter().map(pause).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(text: &str) -> RetryPolicy {
        toml::from_str(text).unwrap()
    }

    fn failure() -> Outcome {
        Outcome::Retry { reason: "koji is away".into(), after: None }
    }

    fn check(policy: &RetryPolicy, outcome: &Outcome, attempt: u32, expected: Settlement) {
        assert_eq!(policy.decide(outcome, attempt, 0.0), expected);
    }

    fn retry(seconds: u64) -> Settlement {
        Settlement::Retry { after: Duration::from_secs(seconds) }
    }

    #[test]
    fn success_is_acknowledged() {
        check(&RetryPolicy::default(), &Outcome::Success, 1, Settlement::Ack);
        check(&RetryPolicy::default(), &Outcome::Success, 99, Settlement::Ack);
    }

    #[test]
    fn a_failure_is_retried_with_back_off_and_then_dead_lettered() {
        for (attempt, seconds) in [(1, 10), (2, 60), (3, 600), (4, 3600)] {
            check(&RetryPolicy::default(), &failure(), attempt, retry(seconds));
        }
        let dead = Settlement::dead_letter("retry: koji is away (attempt 5, the last)".to_owned());
        check(&RetryPolicy::default(), &failure(), 5, dead);
    }

    #[test]
    fn the_last_delay_serves_further_attempts() {
        let policy = policy("max_attempts = 4\npauses = ['1s', '2s']");
        for (attempt, seconds) in [(1, 1), (2, 2), (3, 2)] {
            check(&policy, &failure(), attempt, retry(seconds));
        }
        assert!(matches!(policy.decide(&failure(), 4, 0.0), Settlement::DeadLetter { .. }));
    }

    #[test]
    fn a_task_gets_the_delay_that_it_asks_for() {
        let after = Some(Duration::from_secs(7));
        let outcome = Outcome::Retry { reason: "x".into(), after };
        check(&RetryPolicy::default(), &outcome, 1, retry(7));
        let after = Some(Duration::MAX);
        let outcome = Outcome::Retry { reason: "x".into(), after };
        let longest = Settlement::Retry { after: RetryPolicy::MAX_DELAY };
        for chance in [0.0, 1.0] {
            assert_eq!(RetryPolicy::default().decide(&outcome, 1, chance), longest);
        }
        let outcome = Outcome::Retry { reason: "x".into(), after: Some(Duration::ZERO) };
        let shortest = Settlement::Retry { after: RetryPolicy::MIN_DELAY };
        check(&RetryPolicy::default(), &outcome, 1, shortest);
    }

    #[test]
    fn a_rejected_message_is_dead_lettered_at_once() {
        let outcome = Outcome::Reject { reason: "no package".into() };
        let dead = Settlement::dead_letter("reject: no package".to_owned());
        check(&RetryPolicy::default(), &outcome, 1, dead);
    }

    #[test]
    fn a_refused_entry_is_dead_lettered() {
        let outcome = Outcome::Refused { reason: "no more".into() };
        check(&RetryPolicy::default(), &outcome, 1, Settlement::dead_letter("refused: no more"));
    }

    /// The operator would wonder if it ran again.
    #[test]
    fn a_run_that_an_operator_cancelled_is_not_repeated() {
        let outcome = Outcome::Aborted { reason: "by ann".into() };
        check(&RetryPolicy::default(), &outcome, 1, Settlement::dead_letter("aborted: by ann"));
        let policy = RetryPolicy { on_failure: OnFailure::StopWorker, ..RetryPolicy::default() };
        assert!(!policy.stops_worker(&outcome));
    }

    #[test]
    fn a_cancelled_run_costs_no_attempt() {
        let back = Settlement::Requeue { after: Duration::ZERO };
        check(&RetryPolicy::default(), &Outcome::Cancelled, 3, back);
    }

    #[test]
    fn a_run_that_could_not_start_costs_no_attempt() {
        let requeue = Settlement::Requeue { after: UNAVAILABLE_DELAY };
        let reason = || "too many open files".into();
        let policy = policy("on_failure = 'stop-worker'\nmax_attempts = 1");
        for outcome in
            [Outcome::Shortage { reason: reason() }, Outcome::Unavailable { reason: reason() }]
        {
            check(&policy, &outcome, 1, requeue.clone());
            assert!(!outcome.is_failure() && !policy.stops_worker(&outcome));
        }
    }

    #[test]
    fn an_entry_whose_runs_kill_the_daemon_is_refused() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.refuse(5, 2), None);
        let reason = policy.refuse(1, 3).unwrap();
        assert_eq!(reason.as_str(), "the daemon died 3 times during a run of this entry");
        let reason = policy.refuse(6, 0).unwrap();
        assert_eq!(reason.as_str(), "all 5 attempts of this entry are used");
    }

    #[test]
    fn without_retries_the_first_failure_is_dead_lettered() {
        for (word, stops) in [("dead-letter", false), ("stop-worker", true)] {
            let policy = policy(&format!("on_failure = '{word}'"));
            assert!(matches!(policy.decide(&failure(), 1, 0.0), Settlement::DeadLetter { .. }));
            assert_eq!(policy.stops_worker(&failure()), stops);
            assert!(!policy.stops_worker(&Outcome::Success));
            assert!(!policy.stops_worker(&Outcome::Cancelled));
        }
    }

    #[test]
    fn a_delay_of_zero_is_refused() {
        let error = toml::from_str::<RetryPolicy>("pauses = ['0s']").unwrap_err().to_string();
        assert!(error.contains("a pause must be 100ms to 7days, not `0s`"), "{error}");
    }

    #[test]
    fn attempts_have_a_limit() {
        let error = toml::from_str::<RetryPolicy>("max_attempts = 51").unwrap_err().to_string();
        assert!(error.contains("max_attempts must be 1 to 50, not 51"), "{error}");
    }

    proptest! {
        #[test]
        fn no_failure_is_retried_forever_or_at_once(
            max in 1_u32..=50, attempt in 1_u32..80, chance in 0.0..1.0_f64,
        ) {
            let policy = policy(&format!("max_attempts = {max}"));
            match policy.decide(&failure(), attempt, chance) {
                Settlement::Retry { after } => {
                    prop_assert!(attempt < max);
                    prop_assert!(after >= Duration::from_secs(10));
                    prop_assert!(after <= Duration::from_secs(3600).mul_f64(1.0 + JITTER));
                }
                settlement => {
                    prop_assert!(attempt >= max);
                    let is_dead = matches!(settlement, Settlement::DeadLetter { .. });
                    prop_assert!(is_dead);
                }
            }
        }
    }
}
