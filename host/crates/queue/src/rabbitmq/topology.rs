//! The queues on the broker that belong to one of our queues, and their declarations.
//!
//! For the queue `workers` these are: `workers` itself; `workers.dead` for its dead letters;
//! `workers.wait.10s` and others, in which a retry waits until the broker returns it; and, once a task was
//! paused, `workers.held.TASK`. All are quorum queues. No bindings are needed, because all messages go
//! through the default exchange.

use std::time::Duration;

use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use loopabull_amqp::Version;
use loopabull_model::{QueueName, TaskName};

use crate::config::QueueConfig;
use crate::delivered::DELIVERY_LIMIT;

/// The first version of RabbitMQ that supports an acknowledgement timeout for a single queue (3.12.0,
/// release notes).
pub(super) const QUEUE_ACK_TIMEOUT_SINCE: Version = Version(3, 12, 0);
/// The acknowledgement timeout in our declarations. Brokers before 3.12 store it and ignore it, and no
/// version compares it when a queue is declared again (seen on 3.10.8 and 4.0.5), so it is always the same.
pub(super) const DECLARED_ACK_TIMEOUT: Duration = Duration::from_hours(24);

/// The first version with a default delivery limit, of 20. It drops messages beyond the limit (4.0, release
/// notes). -1 means no limit, but 3.10 then dead-letters every message at once (seen on 3.10.8). A very high
/// limit means the same to all versions.
pub(super) const DEFAULT_DELIVERY_LIMIT_SINCE: Version = Version(4, 0, 0);

/// The role of a queue on the broker.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum QueueRole {
    /// The queue itself.
    Work,
    /// Its dead letters.
    Dead,
    /// Entries that are delayed by about one step.
    Delay(DelayStep),
    /// Entries of a paused task.
    Held(TaskName),
}

/// The delay of a delay queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum DelayStep {
    Second,
    TenSeconds,
    Minute,
    TenMinutes,
    Hour,
}

/// One passage through a delay queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct DelayHop {
    pub(super) step: DelayStep,
    pub(super) expiration: Duration,
    /// The delay that remains after the hop.
    pub(super) remaining: Duration,
}

impl DelayStep {
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

impl DelayHop {
    /// Returns the first hop of a delay.
    ///
    /// A queue expires messages only at its head, so a message that waits long delays those behind it. A
    /// hop is therefore at most a quarter longer than its queue's step, which leaves room for the jitter of
    /// retries, and a delay between two steps takes several hops.
    pub(super) fn first(delay: Duration) -> Self {
        let fits = |step: &&DelayStep| step.length() <= delay;
        let step = *DelayStep::ALL.iter().rev().find(fits).unwrap_or(&DelayStep::Second);
        let longest = step.length().mul_f64(1.25);
        let expiration = if delay <= longest { delay } else { step.length() };
        Self { step, expiration, remaining: delay - expiration }
    }
}

impl QueueRole {
    /// Returns the roles that every queue has.
    pub(super) fn permanent() -> impl Iterator<Item = Self> {
        [Self::Work, Self::Dead].into_iter().chain(DelayStep::ALL.map(Self::Delay))
    }

    /// Returns the name on the broker.
    pub(super) fn name(&self, queue: &QueueName) -> String {
        match self {
            Self::Work => queue.to_string(),
            Self::Dead => format!("{queue}.dead"),
            Self::Delay(step) => format!("{queue}.wait.{}", step.name()),
            Self::Held(task) => format!("{queue}.held.{task}"),
        }
    }

    /// Returns the arguments of the queue's declaration.
    ///
    /// The broker moves messages by itself out of a delay queue and at the delivery limit. It does so
    /// without loss only with the strategy `at-least-once`, which requires a queue that refuses publishers
    /// when it is full (RabbitMQ, "Dead Letter Exchanges" for quorum queues).
    pub(super) fn arguments(&self, config: &QueueConfig) -> FieldTable {
        let mut table = FieldTable::default();
        let mut set = |name: &str, value| {
            table.insert(ShortString::from(name), value);
        };
        let text = |text: &str| AMQPValue::LongString(LongString::from(text));
        set("x-queue-type", text("quorum"));
        let dead_letters_to = match self {
            Self::Work => Some(Self::Dead),
            Self::Delay(_) => Some(Self::Work),
            Self::Dead | Self::Held(_) => None,
        };
        if let Some(to) = dead_letters_to {
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
                let timeout = i64::try_from(DECLARED_ACK_TIMEOUT.as_millis()).unwrap_or(i64::MAX);
                set("x-consumer-timeout", AMQPValue::LongLongInt(timeout));
            }
            Self::Delay(_) => (),
            // Reading them must not use up their deliveries.
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

    fn check(delay_ms: u64, step: DelayStep, expiration_ms: u64, remaining_ms: u64) {
        let [delay, expiration, remaining] =
            [delay_ms, expiration_ms, remaining_ms].map(Duration::from_millis);
        assert_eq!(DelayHop::first(delay), DelayHop { step, expiration, remaining });
    }

    #[test]
    fn a_delay_of_one_step_with_jitter_takes_one_hop() {
        for (step, seconds) in DelayStep::ALL.into_iter().zip([1, 10, 60, 600, 3600]) {
            check(seconds * 1000, step, seconds * 1000, 0);
            check(seconds * 1200, step, seconds * 1200, 0);
        }
    }

    #[test]
    fn a_delay_between_two_steps_takes_several_hops() {
        check(150_000, DelayStep::Minute, 60_000, 90_000);
        check(90_000, DelayStep::Minute, 60_000, 30_000);
        check(30_000, DelayStep::TenSeconds, 10_000, 20_000);
        check(9_000, DelayStep::Second, 1_000, 8_000);
    }

    #[test]
    fn a_short_delay_is_not_rounded_up() {
        check(100, DelayStep::Second, 100, 0);
    }

    #[test]
    fn every_delay_ends_after_a_limited_number_of_hops() {
        for mut delay in [1, 12_345, 99_999, 7 * 24 * 3600 * 1000].map(Duration::from_millis) {
            let mut hops = 0;
            while !delay.is_zero() {
                delay = DelayHop::first(delay).remaining;
                hops += 1;
            }
            assert!(hops <= 180, "{hops}");
        }
    }
}
