//! Which queues stand on the broker for one queue of ours, and how they are declared.
//!
//! `workers` itself; `workers.dead`, where it puts what was set aside; `workers.wait.10s` and others,
//! in which a retry waits for its time and from which the broker puts it back; and, once a task was
//! paused, `workers.held.TASK`. All are quorum queues. Bindings are not needed: everything goes
//! through the default exchange.

use std::time::Duration;

use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use loopabull_model::{QueueName, TaskName};

use super::broker::Version;
use crate::QueueConfig;

/// How often the broker delivers one copy of an entry before it sets it aside by itself. It counts
/// deliveries that ended with their connection, also of messages that no task ever saw, so it is far
/// beyond what a policy allows: the attempts are counted by us.
pub(crate) const DELIVERY_LIMIT: u32 = 100;

/// The first version of RabbitMQ that takes an acknowledgement timeout for a queue (3.12.0, release
/// notes).
pub(super) const QUEUE_ACK_TIMEOUT: Version = Version(3, 12, 0);
/// The acknowledgement timeout of our queues. Brokers before 3.12 keep it and do not heed it, and none
/// compares it when a queue is declared again (seen on 3.10.8 and 4.0.5): so it is always the same.
pub(super) const OUR_ACK_TIMEOUT: Duration = Duration::from_hours(24);

/// The first version that limits deliveries, to 20, if nobody says otherwise, and drops what passes
/// that (4.0, release notes). No limit would be -1, by which 3.10 sets everything aside at once (seen
/// on 3.10.8): a very high one means the same to all.
pub(super) const DEFAULT_DELIVERY_LIMIT: Version = Version(4, 0, 0);

/// Where an entry stands on the broker.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Station {
    /// In the queue itself.
    Work,
    /// Among the dead letters.
    Dead,
    /// In a pause.
    Wait(Step),
    /// Until its task is resumed.
    Held(TaskName),
}

/// A pause that a waiting queue stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    Second,
    TenSeconds,
    Minute,
    TenMinutes,
    Hour,
}

/// One stay in a waiting queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Stay {
    pub(super) step: Step,
    pub(super) expiration: Duration,
    /// The pause that is then left.
    pub(super) left: Duration,
}

impl Step {
    pub(super) const ALL: [Self; 5] =
        [Self::Second, Self::TenSeconds, Self::Minute, Self::TenMinutes, Self::Hour];

    fn name(self) -> &'static str {
        match self {
            Self::Second => "1s",
            Self::TenSeconds => "10s",
            Self::Minute => "1m",
            Self::TenMinutes => "10m",
            Self::Hour => "1h",
        }
    }

    fn length(self) -> Duration {
        Duration::from_secs(match self {
            Self::Second => 1,
            Self::TenSeconds => 10,
            Self::Minute => 60,
            Self::TenMinutes => 600,
            Self::Hour => 3600,
        })
    }
}

impl Stay {
    /// Returns the first stay of a pause.
    ///
    /// A queue lets its messages go from its head, so one that may stay long keeps those behind it.
    /// A stay is therefore no more than a quarter longer than its queue's step, which leaves room
    /// for the jitter of the steps, and a pause between two steps is made of several stays.
    pub(super) fn first(pause: Duration) -> Self {
        let fits = |step: &&Step| step.length() <= pause;
        let step = *Step::ALL.iter().rev().find(fits).unwrap_or(&Step::Second);
        let longest = step.length().mul_f64(1.25);
        let expiration = if pause <= longest { pause } else { step.length() };
        Self { step, expiration, left: pause - expiration }
    }
}

impl Station {
    /// Returns the stations that every queue has.
    pub(super) fn always() -> impl Iterator<Item = Self> {
        [Self::Work, Self::Dead].into_iter().chain(Step::ALL.map(Self::Wait))
    }

    /// Returns the name on the broker.
    pub(super) fn name(&self, queue: &QueueName) -> String {
        match self {
            Self::Work => queue.to_string(),
            Self::Dead => format!("{queue}.dead"),
            Self::Wait(step) => format!("{queue}.wait.{}", step.name()),
            Self::Held(task) => format!("{queue}.held.{task}"),
        }
    }

    /// Returns the arguments for its declaration.
    ///
    /// What the broker moves by itself, out of a waiting queue or at the delivery limit, it moves
    /// without loss only by the strategy `at-least-once`, and that it has only for queues that
    /// refuse publishers when they are full (RabbitMQ, "Dead Letter Exchanges" for quorum queues).
    pub(super) fn arguments(&self, config: &QueueConfig) -> FieldTable {
        let mut table = FieldTable::default();
        let mut set = |name: &str, value| {
            table.insert(ShortString::from(name), value);
        };
        let text = |text: &str| AMQPValue::LongString(LongString::from(text));
        set("x-queue-type", text("quorum"));
        let goes_to = match self {
            Self::Work => Some(Self::Dead),
            Self::Wait(_) => Some(Self::Work),
            Self::Dead | Self::Held(_) => None,
        };
        if let Some(to) = goes_to {
            set("x-dead-letter-exchange", text(""));
            set("x-dead-letter-routing-key", text(&to.name(&config.name)));
            set("x-dead-letter-strategy", text("at-least-once"));
            set("x-overflow", text("reject-publish"));
        }
        match self {
            Self::Work => {
                set("x-delivery-limit", AMQPValue::LongInt(DELIVERY_LIMIT.cast_signed()));
                if config.exclusive_order {
                    set("x-single-active-consumer", AMQPValue::Boolean(true));
                }
                let timeout = i64::try_from(OUR_ACK_TIMEOUT.as_millis()).unwrap_or(i64::MAX);
                set("x-consumer-timeout", AMQPValue::LongLongInt(timeout));
            }
            Self::Wait(_) => (),
            // Who looks through them must not use them up.
            Self::Dead | Self::Held(_) => {
                set("x-delivery-limit", AMQPValue::LongInt(i32::MAX));
            }
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pause_ms: u64, step: Step, expiration_ms: u64, left_ms: u64) {
        let [pause, expiration, left] =
            [pause_ms, expiration_ms, left_ms].map(Duration::from_millis);
        assert_eq!(Stay::first(pause), Stay { step, expiration, left });
    }

    #[test]
    fn a_step_of_the_ladder_with_its_jitter_is_one_stay() {
        for (step, seconds) in Step::ALL.into_iter().zip([1, 10, 60, 600, 3600]) {
            check(seconds * 1000, step, seconds * 1000, 0);
            check(seconds * 1200, step, seconds * 1200, 0);
        }
    }

    #[test]
    fn a_pause_between_two_steps_is_several_stays() {
        check(150_000, Step::Minute, 60_000, 90_000);
        check(90_000, Step::Minute, 60_000, 30_000);
        check(30_000, Step::TenSeconds, 10_000, 20_000);
        check(9_000, Step::Second, 1_000, 8_000);
    }

    #[test]
    fn a_short_pause_is_as_short_as_it_is() {
        check(100, Step::Second, 100, 0);
    }

    #[test]
    fn every_pause_comes_to_its_end() {
        for mut pause in [1, 12_345, 99_999, 7 * 24 * 3600 * 1000].map(Duration::from_millis) {
            let mut stays = 0;
            while !pause.is_zero() {
                pause = Stay::first(pause).left;
                stays += 1;
            }
            assert!(stays <= 180, "{stays}");
        }
    }
}
