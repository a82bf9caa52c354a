//! Estimates how long the oldest entry of a queue has waited. RabbitMQ does not report it.
//!
//! A queue is first in, first out. So the entries that wait came after the one that was delivered last, and after the queue
//! was last seen empty: the oldest has waited at most as long as the shorter of these two times. If neither is known, it has
//! waited at least since the last delivery, or since the first look.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use loopabull_model::QueueName;
use parking_lot::Mutex;

use crate::clock::now_ms;
use crate::depth::{Bound, Oldest};

/// The time for which each look must find nothing before a queue counts as empty. The broker also returns 0 while a queue has
/// no leader (`rabbit_quorum_queue:stat`).
const EMPTY_FOR: Duration = Duration::from_secs(30);

/// The facts from which the age of the oldest entry of each queue is estimated.
#[derive(Debug, Default)]
pub(super) struct Ages(Mutex<BTreeMap<QueueName, Age>>);

#[derive(Clone, Copy, Debug, Default)]
struct Age {
    /// Time at which the last delivered entry was published, in milliseconds since 1970. A later delivery without a known time
    /// and a look at an empty queue leave it as it is.
    delivered_ms: Option<i64>,
    /// Time of the last delivery, or of the first look.
    unmoved_since: Option<Instant>,
    /// Time of the first of the last looks, all of which found nothing.
    empty_since: Option<Instant>,
    /// Time of the last look at an empty queue.
    last_empty: Option<Instant>,
}

impl Ages {
    /// Notes a delivery from the work queue. `queued_at_ms` is unknown for an external message, and other programs may have
    /// written any number.
    pub(super) fn deliver(&self, queue: &QueueName, queued_at_ms: Option<i64>) {
        let mut ages = self.0.lock();
        let age = ages.entry(queue.clone()).or_default();
        age.unmoved_since = Some(Instant::now());
        if let Some(known) = queued_at_ms.filter(|at| (1..=now_ms()).contains(at)) {
            age.delivered_ms = Some(known);
        }
    }

    /// Returns how long the oldest entry has waited, if `waiting` entries wait now. `None` if nothing waits, or nothing is
    /// known.
    pub(super) fn oldest(&self, queue: &QueueName, waiting: u64) -> Option<Oldest> {
        self.look(queue, waiting, Instant::now())
    }

    fn look(&self, queue: &QueueName, waiting: u64, now: Instant) -> Option<Oldest> {
        let mut ages = self.0.lock();
        let age = ages.entry(queue.clone()).or_default();
        if waiting == 0 {
            let since = *age.empty_since.get_or_insert(now);
            if now - since >= EMPTY_FOR {
                age.last_empty = Some(now);
            }
            return None;
        }
        age.empty_since = None;
        let since_empty = age.last_empty.map(|empty| now - empty);
        let since_queued = age.delivered_ms.map(|queued| {
            Duration::from_millis(
                u64::try_from(now_ms().saturating_sub(queued)).unwrap_or_default(),
            )
        });
        let at_most = since_empty.into_iter().chain(since_queued).min();
        let at_least = age.unmoved_since.map(|unmoved| now - unmoved);
        age.unmoved_since.get_or_insert(now);
        let at_most = at_most.map(|age| Oldest { age, bound: Bound::AtMost });
        at_most.or(at_least.map(|age| Oldest { age, bound: Bound::AtLeast }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    #[test]
    fn the_oldest_entry_came_after_the_last_delivery_and_after_the_queue_was_empty() {
        let (ages, queue) = (Ages::default(), QueueName::default());
        let start = Instant::now();
        let look = |waiting, seconds| {
            let oldest = ages.look(&queue, waiting, start + Duration::from_secs(seconds));
            oldest.map(|oldest| (oldest.bound, oldest.age.as_secs()))
        };
        assert_eq!(look(5, 0), None, "nothing is known");
        assert_eq!(look(5, 10), Some((Bound::AtLeast, 10)));
        ages.deliver(&queue, Some(now_ms() - 5 * HOUR));
        assert_eq!(look(5, 10), Some((Bound::AtMost, 5 * 3600)));
        ages.deliver(&queue, Some(now_ms() - 3 * HOUR));
        // An external message and a retry leave the known time as it is.
        ages.deliver(&queue, None);
        assert_eq!(look(5, 10), Some((Bound::AtMost, 3 * 3600)));
        // Looks at an empty queue within seconds prove nothing.
        assert_eq!((look(0, 20), look(0, 21)), (None, None));
        assert_eq!(look(5, 22), Some((Bound::AtMost, 3 * 3600)));
        assert_eq!((look(0, 30), look(0, 60)), (None, None));
        assert_eq!(look(5, 65), Some((Bound::AtMost, 5)));
    }

    #[test]
    fn a_time_that_cannot_be_is_unknown() {
        let (ages, queue) = (Ages::default(), QueueName::default());
        for hostile in [i64::MIN, -1, 0, now_ms() + HOUR, i64::MAX] {
            ages.deliver(&queue, Some(hostile));
            assert_eq!(ages.oldest(&queue, 1).unwrap().bound, Bound::AtLeast, "{hostile}");
        }
    }
}
