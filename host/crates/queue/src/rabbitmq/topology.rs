//! The names and the arguments of the queues on the broker. Each queue of the host needs several of them.
//!
//! For the queue `workers`, the broker has these quorum queues:
//! - `workers`, for entries that wait for a worker;
//! - `workers.retry`, for retries that are due. A queue with exclusive order has none;
//! - `workers.dead`, for dead letters;
//! - `workers.wait.10s` and others, for retries that wait until the broker moves them to `workers.retry`;
//! - `workers.held.TASK`, for held entries of a paused or refused task. It is created when the first entry is
//!   held, or by `loopabull-host broker apply`. If the broker does not permit that, the entries wait in a delay
//!   queue instead.
//!
//! No bindings are needed, because all messages go through the default exchange.

use std::time::Duration;

use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use loopabull_amqp::Version;
use loopabull_model::{QueueName, TaskName};

use crate::config::QueueConfig;

/// First version of RabbitMQ that supports an acknowledgement timeout for a single queue (3.12.0, release
/// notes).
pub(super) const QUEUE_ACK_TIMEOUT_SINCE: Version = Version(3, 12, 0);
/// Acknowledgement timeout in our declarations. Brokers before 3.12 ignore the argument. No version compares
/// the argument when an existing queue is declared again (seen on 3.10.8 and 4.0.5), so a new value would not
/// reach existing queues. The value must therefore not depend on the configuration.
pub(super) const DECLARED_ACK_TIMEOUT: Duration = Duration::from_hours(24);

/// Number of unsettled deliveries after which an entry becomes a dead letter.
///
/// If a connection is lost, RabbitMQ also counts the deliveries of its prefetched entries, although no worker
/// has received them. So the limit is much higher than the number of attempts in any retry policy. The host
/// counts attempts itself.
pub(super) const DELIVERY_LIMIT: u32 = 100;
/// First version of RabbitMQ with a default delivery limit. The limit is 20, and the broker drops messages
/// beyond it (4.0, release notes). So we declare a limit for every queue that we consume. For queues that
/// need no limit we declare the largest number. We do not declare -1, because 3.10 then dead-letters every
/// message at once (seen on 3.10.8).
pub(super) const DEFAULT_DELIVERY_LIMIT_SINCE: Version = Version(4, 0, 0);

/// The role of a queue on the broker.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum QueueRole {
    /// The queue for entries that wait for a worker.
    Work,
    /// The queue for retries that are due.
    Retry,
    /// The queue for dead letters.
    Dead,
    /// A queue for entries that wait for about one delay step.
    Delay(DelayStep),
    /// The queue for held entries of a task.
    Held(TaskName),
}

/// The length of the delay in a delay queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum DelayStep {
    Second,
    TenSeconds,
    Minute,
    TenMinutes,
    Hour,
}

/// One stay of an entry in a delay queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct DelayHop {
    pub(super) step: DelayStep,
    pub(super) expiration: Duration,
    /// Delay that remains after the hop.
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
    /// The broker expires messages only at the head of a queue, so a message with a long expiration delays
    /// the messages behind it. A hop is therefore at most a quarter longer than the step of its queue. The
    /// quarter leaves room for the jitter of retries. A delay between two steps takes several hops.
    pub(super) fn first(delay: Duration) -> Self {
        let fits = |step: &&DelayStep| step.length() <= delay;
        let step = *DelayStep::ALL.iter().rev().find(fits).unwrap_or(&DelayStep::Second);
        let longest = step.length().mul_f64(1.25);
        let expiration = if delay <= longest { delay } else { step.length() };
        Self { step, expiration, remaining: delay - expiration }
    }
}

impl QueueRole {
    /// Returns the roles of the queues that always exist. Queues for held entries are created when needed.
    pub(super) fn permanent(config: &QueueConfig) -> impl Iterator<Item = Self> {
        let retry = (!config.exclusive_order).then_some(Self::Retry);
        let first = [Some(Self::Work), retry, Some(Self::Dead)].into_iter().flatten();
        first.chain(DelayStep::ALL.map(Self::Delay))
    }

    /// Returns the role of the queue for retries that are due. Only one consumer at a time may receive the entries
    /// of a queue with exclusive order, so its retries go back to it.
    pub(super) fn due(config: &QueueConfig) -> Self {
        if config.exclusive_order { Self::Work } else { Self::Retry }
    }

    /// Returns the roles of the queues for held entries of the known tasks.
    pub(super) fn held(config: &QueueConfig) -> impl Iterator<Item = Self> {
        config.tasks.iter().cloned().map(Self::Held)
    }

    /// Returns the name of the queue on the broker.
    pub(super) fn name(&self, queue: &QueueName) -> String {
        match self {
            Self::Work => queue.to_string(),
            Self::Retry => format!("{queue}.retry"),
            Self::Dead => format!("{queue}.dead"),
            Self::Delay(step) => format!("{queue}.wait.{}", step.name()),
            Self::Held(task) => format!("{queue}.held.{task}"),
        }
    }

    /// Returns the arguments of the queue's declaration.
    ///
    /// The broker itself moves a message that expires in a delay queue or that exceeds the delivery limit. To
    /// move it without loss, the queue needs the dead-letter strategy `at-least-once`. This strategy requires
    /// the overflow `reject-publish` (RabbitMQ, "Dead Letter Exchanges" for quorum queues).
    pub(super) fn arguments(&self, config: &QueueConfig) -> FieldTable {
        let mut table = FieldTable::default();
        let mut set = |name: &str, value| {
            table.insert(ShortString::from(name), value);
        };
        let text = |text: &str| AMQPValue::LongString(LongString::from(text));
        set("x-queue-type", text("quorum"));
        let dead_letters_to = match self {
            Self::Work | Self::Retry => Some(Self::Dead),
            Self::Delay(_) => Some(Self::due(config)),
            Self::Dead | Self::Held(_) => None,
        };
        if let Some(to) = dead_letters_to {
            set("x-dead-letter-exchange", text(""));
            set("x-dead-letter-routing-key", text(&to.name(&config.name)));
            set("x-dead-letter-strategy", text("at-least-once"));
            set("x-overflow", text("reject-publish"));
        }
        match self {
            Self::Work | Self::Retry => {
                set("x-delivery-limit", AMQPValue::LongInt(DELIVERY_LIMIT.cast_signed()));
                if config.exclusive_order {
                    set("x-single-active-consumer", AMQPValue::Boolean(true));
                }
                let timeout = i64::try_from(DECLARED_ACK_TIMEOUT.as_millis()).unwrap_or(i64::MAX);
                set("x-consumer-timeout", AMQPValue::LongLongInt(timeout));
            }
            Self::Delay(_) => (),
            // Reading these queues counts as a delivery of each entry in them, so the limit must be very
            // high.
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
