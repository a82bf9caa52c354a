//! Estimates how long the oldest entry of a queue has waited. RabbitMQ does not report it.
//!
//! A queue is first in, first out. So the entries that wait came after the one that was delivered last, and after the queue
//! was last seen empty: the oldest has waited at most as long as the shorter of these two times. If neither is known, the time
//! since the first look is a lower limit.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use loopabull_model::QueueName;
use parking_lot::Mutex;

use crate::clock::now_ms;

/// What is known about the entries of each queue.
#[derive(Debug, Default)]
pub(super) struct Ages(Mutex<BTreeMap<QueueName, Age>>);

#[derive(Clone, Copy, Debug, Default)]
struct Age {
    /// Since when the message that was delivered last had been in the queue, in milliseconds since 1970, if it is known.
    delivered_ms: Option<i64>,
    first_look: Option<Instant>,
    last_empty: Option<Instant>,
    /// Whether the last look found nothing. One such look is no certainty: the broker also returns 0 while the queue has no
    /// leader (`rabbit_quorum_queue:stat`).
    is_empty: bool,
}

impl Ages {
    /// Notes a delivery from the work queue. `queued_at_ms` is unknown for an external message, and other programs may have
    /// written any number.
    pub(super) fn deliver(&self, queue: &QueueName, queued_at_ms: Option<i64>) {
        let known = queued_at_ms.filter(|at| (1..=now_ms()).contains(at));
        self.0.lock().entry(queue.clone()).or_default().delivered_ms = known;
    }

    /// Returns how long the oldest entry has waited at most, if `waiting` entries wait now. `None` if nothing waits, or
    /// nothing is known.
    pub(super) fn oldest(&self, queue: &QueueName, waiting: u64) -> Option<Duration> {
        let mut ages = self.0.lock();
        let age = ages.entry(queue.clone()).or_default();
        let was_empty = std::mem::replace(&mut age.is_empty, waiting == 0);
        if waiting == 0 {
            if was_empty {
                age.last_empty = Some(Instant::now());
            }
            return None;
        }
        let since_empty = age.last_empty.map(|empty| empty.elapsed());
        let since_queued = age.delivered_ms.map(|queued| {
            Duration::from_millis(
                u64::try_from(now_ms().saturating_sub(queued)).unwrap_or_default(),
            )
        });
        let known = since_empty.into_iter().chain(since_queued).min();
        let first_look = age.first_look.map(|first| first.elapsed());
        age.first_look.get_or_insert_with(Instant::now);
        known.or(first_look)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    #[test]
    fn the_oldest_entry_came_after_the_last_delivery_and_after_the_queue_was_empty() {
        let (ages, queue) = (Ages::default(), QueueName::default());
        let oldest = || ages.oldest(&queue, 5).map(|oldest| oldest.as_secs());
        assert_eq!(oldest(), None, "nothing is known");
        assert!(oldest().unwrap() < 60, "the first look is known");
        ages.deliver(&queue, Some(now_ms() - 5 * HOUR));
        assert_eq!(oldest(), Some(5 * 3600));
        ages.deliver(&queue, Some(now_ms() - 3 * HOUR));
        assert_eq!(oldest(), Some(3 * 3600));
        // One look at an empty queue proves nothing, two do.
        assert_eq!(ages.oldest(&queue, 0), None);
        assert_eq!(oldest(), Some(3 * 3600));
        assert_eq!((ages.oldest(&queue, 0), ages.oldest(&queue, 0)), (None, None));
        assert!(oldest().unwrap() < 60, "the queue was empty a moment ago");
    }

    #[test]
    fn a_time_that_cannot_be_is_unknown() {
        let (ages, queue) = (Ages::default(), QueueName::default());
        assert_eq!(ages.oldest(&queue, 1), None);
        for hostile in [i64::MIN, -1, 0, now_ms() + HOUR, i64::MAX] {
            ages.deliver(&queue, Some(hostile));
            assert!(ages.oldest(&queue, 1).unwrap().as_secs() < 60, "{hostile}");
        }
    }
}
