//! A claim: a delivery of the broker that is not settled yet.
//!
//! To settle a delivery, the claim acknowledges or requeues it. For a retry, a held entry or a dead letter,
//! the claim first publishes a copy of the entry to another queue.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lapin::Channel;
use lapin::message::Delivery as RawDelivery;
use lapin::options::{BasicAckOptions, BasicRejectOptions};
use loopabull_amqp::AmqpError;
use loopabull_model::{QueueName, Reason, Settlement, chain};

use super::declaration;
use super::outgoing::Outgoing;
use super::retries;
use super::shared::Shared;
use super::topology::QueueRole;
use crate::delivered::DeliveredEntry;
use crate::error::QueueError;

/// Delay of an entry that should be held, if the queue for held entries of its task cannot be used. After the
/// delay, a worker receives the entry again.
const HELD_DELAY: Duration = Duration::from_secs(60);

/// A delivery of the broker that is not settled yet.
pub(crate) struct Claim {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: QueueName,
    pub(super) raw: Box<RawDelivery>,
    /// Generation of the session in which the delivery was received.
    generation: u64,
    /// Channel of its own on which the entry was received, if it has one. The claim keeps the channel open until
    /// the entry is settled.
    _channel: Option<Channel>,
    /// Whether the entry was held, and is now released.
    was_held: bool,
}

impl Claim {
    pub(super) fn new(
        shared: &Arc<Shared>,
        queue: &QueueName,
        generation: u64,
        raw: RawDelivery,
    ) -> Self {
        let (shared, queue, raw) = (Arc::clone(shared), queue.clone(), Box::new(raw));
        Self { shared, queue, raw, generation, _channel: None, was_held: false }
    }

    /// Gives the claim the channel on which its entry was received.
    pub(super) fn on(self, channel: Channel) -> Self {
        Self { _channel: Some(channel), ..self }
    }

    /// Marks the delivery as a released entry.
    pub(super) fn released(self) -> Self {
        Self { was_held: true, ..self }
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn was_held(&self) -> bool {
        self.was_held
    }

    pub(crate) async fn settle(
        &self,
        delivered: &DeliveredEntry,
        settlement: &Settlement,
    ) -> Result<(), QueueError> {
        let lost = || QueueError::LostClaim { message: delivered.entry.message.id.to_string() };
        let attempts = delivered.attempts_after(settlement);
        let (queue, task) = (&delivered.entry.queue, &delivered.entry.task);
        if !self.is_valid().await {
            return Err(lost());
        }
        let copy = match settlement {
            Settlement::Ack => None,
            Settlement::Retry { after } => Some(Outgoing::delayed(delivered, attempts, *after)),
            Settlement::Requeue { after } if !after.is_zero() => {
                Some(Outgoing::delayed(delivered, attempts, *after))
            }
            // The broker returns the entry to its position in the queue. The broker also counts the requeue
            // towards the delivery limit, but the limit is high enough.
            Settlement::Requeue { .. } => return self.requeue().await,
            Settlement::DeadLetter { reason, output } => {
                let copy = Outgoing::copy(delivered, QueueRole::Dead, attempts);
                Some(copy.dead_lettered(reason, output))
            }
            // The task was paused again while its held entries were being released. The release ends here, so
            // that the remaining entries stay held.
            Settlement::Hold if self.was_held() => {
                self.shared.held.note(queue, task);
                self.shared.held.end_release(&(queue.clone(), task.clone()));
                return self.requeue().await;
            }
            Settlement::Hold => match self.hold(delivered, attempts).await? {
                true => None,
                false => Some(Outgoing::delayed(delivered, attempts, HELD_DELAY)),
            },
        };
        if let Some(copy) = copy {
            self.shared.publish(&copy).await?;
            if let Some(delay) = copy.expiration {
                retries::begin(&self.shared, queue, delay);
            }
        }
        if self.acknowledge().await? { Ok(()) } else { Err(lost()) }
    }

    /// Publishes a copy of the entry to the queue for held entries of its task. Returns `false` if the broker does
    /// not let us create that queue, or if that queue takes no entry.
    async fn hold(&self, delivered: &DeliveredEntry, attempts: u32) -> Result<bool, QueueError> {
        let (queue, task) = (&delivered.entry.queue, &delivered.entry.task);
        if self.shared.held.is_missing(queue, task) {
            return Ok(false);
        }
        let copy = Outgoing::copy(delivered, QueueRole::Held(task.clone()), attempts);
        match self.shared.publish(&copy).await {
            // A release may have found the queue of held entries empty before this copy arrived. So the task is
            // noted after the publish.
            Ok(()) => {
                self.shared.held.note(queue, task);
                Ok(true)
            }
            Err(QueueError::Amqp(error))
                if declaration::is_refused(&error)
                    || matches!(error, AmqpError::NotConfirmed { .. }) =>
            {
                self.shared.report_missing(queue, task, chain(&error));
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Acknowledges the delivery. Returns `false` if the connection or the channel is lost. The broker then
    /// redelivers the message.
    pub(super) async fn acknowledge(&self) -> Result<bool, QueueError> {
        if !self.is_valid().await {
            return Ok(false);
        }
        let session = self.shared.session().await?;
        let ack = self.raw.acker.ack(BasicAckOptions::default());
        // An error means that the connection is lost. `false` means that the channel is closed. In both cases
        // the broker redelivers the message.
        Ok(session.step("acknowledge", ack).await.unwrap_or(false))
    }

    /// Dead-letters a message that is not a readable entry. The body is copied byte for byte.
    pub(super) async fn dead_letter_unread(&self, reason: &Reason) -> Result<(), QueueError> {
        let copy = Outgoing::unread(&self.queue, QueueRole::Dead, &self.raw);
        self.shared.publish(&copy.dead_lettered(reason, "")).await?;
        self.acknowledge().await.map(|_| ())
    }

    /// Returns whether the channel and the session of the delivery still exist. A delivery of an earlier
    /// session must not be settled, because the broker redelivers its message.
    pub(super) async fn is_valid(&self) -> bool {
        let session = self.shared.session().await;
        self.raw.acker.usable()
            && session.is_ok_and(|session| session.generation() == self.generation)
    }

    /// Requeues the entry at its position in the queue.
    async fn requeue(&self) -> Result<(), QueueError> {
        let session = self.shared.session().await?;
        let reject = self.raw.acker.reject(BasicRejectOptions { requeue: true });
        // The result is ignored: if the channel fails, the broker requeues the entry as well.
        drop(session.step("requeue", reject).await);
        Ok(())
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim")
            .field("queue", &self.queue)
            .field("generation", &self.generation)
            .field("delivery_tag", &self.raw.delivery_tag)
            .finish_non_exhaustive()
    }
}
