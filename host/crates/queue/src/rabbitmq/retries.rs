//! Receiving the retries that are due.
//!
//! The delay queues expire into the queue for due retries. A worker takes its next entry by turns from there
//! and from its work queue. So a retry does not wait behind a long work queue, and retries that fail again and
//! again take at most every second turn.
//!
//! A worker does not consume the queue for due retries, because an entry that is sent ahead would wait for the
//! end of a run, which may exceed the acknowledgement timeout. It gets one entry when it is ready for it: when
//! a delay that this host began has ended, and otherwise at an interval.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use lapin::Channel;
use lapin::message::Delivery as RawDelivery;
use lapin::options::BasicGetOptions;
use lapin::types::ShortString;
use loopabull_amqp::Session;
use loopabull_model::{QueueName, chain};

use super::declaration::{is_missing, is_refused};
use super::shared::Shared;
use super::topology::QueueRole;
use crate::error::QueueError;

/// Interval at which a worker looks for due retries of other hosts.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The same interval while the retries cannot be received.
const PROBLEM_INTERVAL: Duration = Duration::from_secs(60);
/// Longest delay for whose end this host sets a timer. After longer ones, the interval is short enough.
const MAX_TIMER: Duration = Duration::from_secs(30);
/// Pauses after the end of a delay, after each of which the workers look for the entry. The broker needs some
/// time to move it.
const BROKER_DELAYS: [Duration; 3] =
    [Duration::from_millis(10), Duration::from_millis(50), Duration::from_millis(200)];

/// Sets a timer for a delay that begins now.
pub(super) fn begin(shared: &Arc<Shared>, queue: &QueueName, delay: Duration) {
    if delay > MAX_TIMER {
        return;
    }
    let (shared, queue) = (Arc::downgrade(shared), queue.clone());
    tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        for delay in BROKER_DELAYS {
            tokio::time::sleep(delay).await;
            let Some(shared) = Weak::upgrade(&shared) else { return };
            shared.retries.mark(&queue);
        }
    });
}

/// The turns of one worker.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Whether the last entry was a retry.
    was_retry: bool,
    looked: Option<Instant>,
    /// The channel of the last look that found nothing.
    channel: Option<Channel>,
}

impl Turns {
    /// Returns whether it is the turn of the work queue.
    pub(super) fn is_work(&self) -> bool {
        self.was_retry
    }

    /// Notes that the worker received an entry, or found the work queue empty.
    pub(super) fn took_work(&mut self) {
        self.was_retry = false;
    }

    /// Gets a due retry, if there may be one. Returns the entry and its channel. The entry gets a channel of its
    /// own, as a released entry does. If the broker does not let us have the retries, that is reported, and the
    /// work queue goes on.
    pub(super) async fn next_due(
        &mut self,
        shared: &Shared,
        session: &Session,
        queue: &QueueName,
    ) -> Result<Option<(RawDelivery, Channel)>, QueueError> {
        let has_problem = shared.retries.has_problem(queue);
        let interval = if has_problem { PROBLEM_INTERVAL } else { LOOK_INTERVAL };
        let is_time = self.looked.is_none_or(|looked| looked.elapsed() >= interval);
        // A delay that ends from now on marks the queue again.
        let is_marked = shared.retries.take(queue);
        if !is_time && (!is_marked || has_problem) {
            return Ok(None);
        }
        self.looked = Some(Instant::now());
        let name = QueueRole::Retry.name(queue);
        let channel = match self.channel.take().filter(|channel| channel.status().connected()) {
            Some(channel) => channel,
            // The broker may answer by closing the channel again.
            None if has_problem => session.open_asking_channel().await?,
            None => session.open_channel().await?,
        };
        let get = channel.basic_get(ShortString::from(name), BasicGetOptions { no_ack: false });
        let got = session.step("get a due retry", get).await;
        if got.is_ok() {
            shared.retries.resolve(queue);
        }
        match got {
            Ok(Some(got)) => {
                // There may be more.
                shared.retries.mark(queue);
                self.was_retry = true;
                Ok(Some((got.delivery, channel)))
            }
            Ok(None) => {
                self.channel = Some(channel);
                Ok(None)
            }
            Err(error) if is_missing(&error) || is_refused(&error) => {
                let restored = match is_missing(&error) {
                    true => shared.ensure_exists(session, queue, &QueueRole::Retry).await,
                    false => Err(error.into()),
                };
                if let Err(error) = restored {
                    shared.retries.report(queue, chain(error));
                }
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}
