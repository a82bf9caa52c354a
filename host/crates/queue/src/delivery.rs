//! A delivery: an entry with its backend's claim, which settles it.

use std::ops::{Deref, DerefMut};

use loopabull_model::Settlement;

use crate::delivered::DeliveredEntry;
use crate::error::QueueError;
use crate::rabbitmq::External;
use crate::{embedded, rabbitmq};

/// A message that a worker receives from a queue.
#[derive(Debug)]
pub enum Received {
    /// An entry, for one attempt.
    Delivery(Delivery),
    /// A message that another program published to the queue. Only RabbitMQ delivers such messages.
    External(External),
}

/// An entry that was delivered to a worker for one attempt, with the claim on it.
///
/// Gives access to the [`DeliveredEntry`] by dereferencing.
#[derive(Debug)]
pub struct Delivery {
    delivered: DeliveredEntry,
    claim: Claim,
}

/// A delivery as its backend identifies it.
#[derive(Debug)]
pub(crate) enum Claim {
    Embedded(embedded::Claim),
    RabbitMq(rabbitmq::Claim),
}

impl Delivery {
    pub(crate) fn new(delivered: DeliveredEntry, claim: Claim) -> Self {
        Self { delivered, claim }
    }

    /// Settles the delivery. Returns once that is durable.
    ///
    /// After [`QueueError::LostClaim`] there is nothing left to settle: the entry will be redelivered.
    /// After another error the call may be repeated.
    pub async fn settle(&self, settlement: &Settlement) -> Result<(), QueueError> {
        match &self.claim {
            Claim::Embedded(claim) => claim.settle(&self.delivered, settlement).await,
            Claim::RabbitMq(claim) => claim.settle(&self.delivered, settlement).await,
        }
    }
}

impl Deref for Delivery {
    type Target = DeliveredEntry;

    fn deref(&self) -> &DeliveredEntry {
        &self.delivered
    }
}

impl DerefMut for Delivery {
    fn deref_mut(&mut self) -> &mut DeliveredEntry {
        &mut self.delivered
    }
}
