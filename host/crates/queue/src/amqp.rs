//! The queue in RabbitMQ.
//!
//! Owns the names and kinds of the queues on the broker: both are quorum queues. One connection
//! publishes and another consumes, because a broker that is short of memory or disk stops reading
//! from publishers, and acknowledgements must still get through. One channel for each worker, so
//! that what happens to one delivery is not done to its neighbours.
//!
//! A connection that broke, and a queue that was deleted, are made anew by the next call that needs
//! them.

mod broker;
mod consumer;
mod entry;
mod publisher;

use std::sync::Arc;

use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection};
use loopabull_model::{Message, Settlement, TaskName};
use tokio::sync::Mutex;

use crate::delivery::Tag;
use crate::{Delivery, Depth, QueueError};
use broker::Broker;
pub(crate) use consumer::Consumer;
use entry::Entry;
use publisher::Publisher;

/// A queue in RabbitMQ.
#[derive(Debug)]
pub struct Amqp {
    broker: Broker,
    name: String,
    prefetch: u16,
    publisher: Arc<Publisher>,
    // Held over `await` on purpose: while one caller makes the connection anew, the others wait
    // for it instead of making more.
    consuming: Mutex<Option<Connection>>,
}

impl Amqp {
    pub(crate) async fn open(url: &str, name: &str, prefetch: u16) -> Result<Self, QueueError> {
        let broker = Broker::new(url)?;
        let queue = Self {
            publisher: Arc::new(Publisher::new(broker.clone())),
            broker,
            name: name.to_owned(),
            prefetch,
            consuming: Mutex::new(None),
        };
        queue.declare().await?;
        Ok(queue)
    }

    pub(crate) async fn publish(
        &self,
        message: &Message,
        task: &TaskName,
    ) -> Result<(), QueueError> {
        self.publisher.send(&Entry::new(&self.name, message, task)).await
    }

    pub(crate) async fn consume(&self) -> Result<Consumer, QueueError> {
        self.declare().await?;
        let channel = self.channel().await?;
        let qos = channel.basic_qos(self.prefetch, BasicQosOptions::default());
        self.broker.wait("set the prefetch", qos).await?;
        let consume = channel.basic_consume(
            self.name.as_str().into(),
            ShortString::default(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let stream = self.broker.wait("consume the queue", consume).await?;
        Ok(Consumer {
            broker: self.broker.clone(),
            publisher: Arc::clone(&self.publisher),
            channel,
            stream,
            queue: self.name.clone(),
            dead_letters: self.dead_letters(),
            stopped: false,
        })
    }

    pub(crate) async fn settle(
        &self,
        delivery: &Delivery,
        settlement: &Settlement,
    ) -> Result<(), QueueError> {
        let Delivery { attempt, tag, .. } = delivery;
        let Tag::Amqp(claim) = tag else {
            unreachable!("a delivery is settled by the queue that made it");
        };
        let lost = || QueueError::LostClaim { message: delivery.message.id.to_string() };
        if !claim.acker.usable() {
            // Its channel is gone and the broker delivers it again: a copy would make two of it.
            return Err(lost());
        }
        // A copy is confirmed before the old one is acknowledged: a crash in between makes two of
        // them, never none.
        let copy = match settlement {
            Settlement::Ack => None,
            // The pause is the retry ladder's, which does not exist yet: attempts follow at once.
            Settlement::Retry { .. } => Some(Entry::again(&self.name, delivery, *attempt)),
            Settlement::GiveBack => Some(Entry::again(&self.name, delivery, attempt - 1)),
            Settlement::DeadLetter { reason } => {
                let entry = Entry::again(&self.dead_letters(), delivery, *attempt);
                Some(entry.with_reason(reason))
            }
        };
        if let Some(copy) = copy {
            self.publisher.send(&copy).await?;
        }
        // `false`: the channel died under us, and the broker will deliver the entry again.
        match self.broker.wait("acknowledge", claim.acker.ack(BasicAckOptions::default())).await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(lost()),
        }
    }

    pub(crate) async fn depth(&self) -> Result<Depth, QueueError> {
        let channel = self.channel().await?;
        let mut counts = [0; 2];
        for (count, name) in counts.iter_mut().zip([self.name.clone(), self.dead_letters()]) {
            *count = self.look_at(&channel, &name).await?;
        }
        let [waiting, dead] = counts;
        Ok(Depth { waiting, dead, claimed: None, oldest: None })
    }

    pub(crate) fn trouble(&self) -> Option<String> {
        self.publisher.trouble()
    }

    fn dead_letters(&self) -> String {
        format!("{}.dead", self.name)
    }

    /// Makes the queue and its dead letters, unless they are there, with whatever arguments.
    async fn declare(&self) -> Result<(), QueueError> {
        for name in [self.name.clone(), self.dead_letters()] {
            if self.look_at(&self.channel().await?, &name).await.is_ok() {
                continue;
            }
            // The broker closed the first channel when it found no queue.
            let channel = self.channel().await?;
            let mut arguments = FieldTable::default();
            arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
            let options = QueueDeclareOptions::durable();
            let declare = channel.queue_declare(name.into(), options, arguments);
            self.broker.wait("declare the queue", declare).await?;
        }
        Ok(())
    }

    /// Returns how many entries wait in a queue that must be there.
    async fn look_at(&self, channel: &Channel, name: &str) -> Result<u64, QueueError> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declare = channel.queue_declare(name.into(), passive, FieldTable::default());
        Ok(self.broker.wait("look at the queue", declare).await?.message_count().into())
    }

    /// Opens a channel on the consuming connection, which is made anew if it is broken.
    async fn channel(&self) -> Result<Channel, QueueError> {
        let mut consuming = self.consuming.lock().await;
        if !consuming.as_ref().is_some_and(|connection| connection.status().connected()) {
            *consuming = Some(self.broker.connect("work").await?);
        }
        let connection = consuming.as_ref().expect("it was made above");
        self.broker.wait("open a channel", connection.create_channel()).await
    }
}
