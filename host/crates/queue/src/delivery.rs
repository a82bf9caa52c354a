//! A delivery: a delivered entry, and the claim with which it is settled.
//!
//! A claim is the backend's handle for one delivery. Workers receive deliveries from `queues`, and settle
//! them with [`Delivery::settle`].

use std::ops::{Deref, DerefMut};

use futures_util::future::join_all;
use loopabull_model::Settlement;

use crate::delivered::DeliveredEntry;
use crate::embedded::FileSettlement;
use crate::error::QueueError;
use crate::rabbitmq::External;
use crate::{embedded, rabbitmq};

/// A message that a worker receives from a queue.
#[derive(Debug)]
pub enum Received {
    /// An entry, delivered for one attempt.
    Delivery(Box<Delivery>),
    /// Messages that another program published to the queue, in its order: all that arrived together. Only the RabbitMQ
    /// backend delivers external messages.
    External(Vec<External>),
}

/// An entry that was delivered to a worker for one attempt, and the claim that settles the delivery.
///
/// Dereferences to the [`DeliveredEntry`].
#[derive(Debug)]
pub struct Delivery {
    delivered: DeliveredEntry,
    claim: Claim,
}

/// The claim on a delivery: what the backend needs to settle the delivery.
#[derive(Debug)]
pub(crate) enum Claim {
    Embedded(embedded::Claim),
    RabbitMq(rabbitmq::Claim),
}

impl Delivery {
    pub(crate) fn new(delivered: DeliveredEntry, claim: Claim) -> Self {
        Self { delivered, claim }
    }

    /// Settles the delivery.
    ///
    /// The embedded backend returns when the settlement is written, and does not sync it. RabbitMQ does not confirm
    /// acknowledgements. So a settled entry may be redelivered after a loss of power, or if the connection is lost right
    /// after the settlement.
    ///
    /// After [`QueueError::LostClaim`] the delivery cannot be settled any more, and the entry is redelivered.
    /// After any other error, the caller may call `settle` again.
    pub async fn settle(&self, settlement: &Settlement) -> Result<(), QueueError> {
        match &self.claim {
            Claim::Embedded(claim) => claim.settle(&self.delivered, settlement).await,
            Claim::RabbitMq(claim) => claim.settle(&self.delivered, settlement).await,
        }
    }

    /// Returns the settlement of a delivery of the embedded queue, for a transaction of the caller on the file of the
    /// queues. `None` with RabbitMQ: call [`Delivery::settle`].
    pub fn file_settlement(&self, settlement: &Settlement) -> Option<FileSettlement> {
        match &self.claim {
            Claim::Embedded(claim) => Some(claim.file_settlement(&self.delivered, settlement)),
            Claim::RabbitMq(_) => None,
        }
    }

    /// Ends the delivery after its [`FileSettlement`] was carried out and committed.
    pub fn end(&self, settlement: &Settlement) {
        if let Claim::Embedded(claim) = &self.claim {
            claim.end(&self.delivered, settlement);
        }
    }

    /// Acknowledges deliveries of one consumer, and returns the result of each as [`Delivery::settle`] does. With the
    /// embedded backend they share one change.
    pub async fn acknowledge(deliveries: &[&Self]) -> Vec<Result<(), QueueError>> {
        let mut claims = Vec::with_capacity(deliveries.len());
        for Self { delivered, claim } in deliveries {
            if let Claim::Embedded(claim) = claim {
                claims.push((claim, delivered));
            }
        }
        if claims.len() == deliveries.len() {
            return embedded::Claim::acknowledge(&claims).await;
        }
        join_all(deliveries.iter().map(|delivery| delivery.settle(&Settlement::Ack))).await
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
