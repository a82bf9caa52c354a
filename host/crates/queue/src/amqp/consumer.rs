//! One worker's end: a channel of its own with its consumer.

use std::sync::Arc;

use futures_util::StreamExt;
use lapin::Channel;
use lapin::message::Delivery as Claim;
use lapin::options::{BasicAckOptions, BasicCancelOptions};
use loopabull_model::Reason;
use tokio_util::sync::CancellationToken;

use super::broker::Broker;
use super::entry::{self, Entry};
use super::publisher::Publisher;
use crate::delivery::Tag;
use crate::{Delivery, QueueError};

/// One worker's end: a channel of its own with its consumer.
#[derive(Debug)]
pub struct Consumer {
    pub(super) broker: Broker,
    pub(super) publisher: Arc<Publisher>,
    pub(super) channel: Channel,
    pub(super) stream: lapin::Consumer,
    pub(super) queue: String,
    pub(super) dead_letters: String,
    pub(super) stopped: bool,
}

impl Consumer {
    pub(crate) async fn receive(
        &mut self,
        stop: &CancellationToken,
    ) -> Result<Option<Delivery>, QueueError> {
        while !stop.is_cancelled() {
            // The stream keeps a delivery that it has not handed out, so it may be dropped here.
            let next = tokio::select! {
                next = self.stream.next() => next,
                () = stop.cancelled() => break,
            };
            // `None` is the broker's cancel (the queue was deleted, its node went away), not an end.
            let next =
                next.ok_or_else(|| QueueError::Cancelled { broker: self.broker.name.clone() })?;
            match entry::read(next.map_err(|source| self.broker.error("receive", source))?) {
                Ok(delivery) => return Ok(Some(delivery)),
                Err((claim, reason)) => self.set_aside(&claim, &reason).await?,
            }
        }
        self.stop().await?;
        Ok(None)
    }

    /// Gives back what the broker had sent ahead. A channel that is simply closed gives it back
    /// too, but the broker would count it as an attempt.
    pub(crate) async fn stop(&mut self) -> Result<(), QueueError> {
        if std::mem::replace(&mut self.stopped, true) {
            return Ok(());
        }
        let tag = self.stream.tag();
        let cancel = self.channel.basic_cancel(tag, BasicCancelOptions::default());
        self.broker.wait("stop consuming", cancel).await?;
        while let Some(next) = self.stream.next().await {
            let claim = next.map_err(|source| self.broker.error("receive", source))?;
            match entry::read(claim) {
                Ok(delivery) => {
                    let copy = Entry::again(&self.queue, &delivery, delivery.attempt - 1);
                    if let Tag::Amqp(claim) = &delivery.tag {
                        self.replace(claim, &copy).await?;
                    }
                }
                Err((claim, reason)) => self.set_aside(&claim, &reason).await?,
            }
        }
        Ok(())
    }

    /// Moves an entry that cannot be read to the dead letters.
    async fn set_aside(&self, claim: &Claim, reason: &Reason) -> Result<(), QueueError> {
        let copy = Entry::unread(&self.dead_letters, claim).with_reason(reason);
        self.replace(claim, &copy).await
    }

    /// Publishes a copy and then lets go of the old one.
    async fn replace(&self, claim: &Claim, copy: &Entry) -> Result<(), QueueError> {
        self.publisher.send(copy).await?;
        let ack = claim.acker.ack(BasicAckOptions::default());
        self.broker.wait("acknowledge", ack).await.map(|_| ())
    }
}
