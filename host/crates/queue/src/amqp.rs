//! The queue in RabbitMQ.
//!
//! Owns the form of an entry on the broker: the message as JSON in the body, the task and the
//! attempts made so far in headers, both queues quorum queues. One connection publishes and
//! another consumes, because a broker that is short of memory or disk stops reading from
//! publishers, and acknowledgements must still get through. One channel for each worker, so that
//! what happens to one delivery is not done to its neighbours.
//!
//! Every wait on the broker has a limit. A connection that broke is made anew by the next call
//! that needs it.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use loopabull_model::{Message, Settlement, TaskName};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::delivery::Tag;
use crate::{Delivery, Depth, QueueError};

/// The task that the entry is for.
const TASK: &str = "loopabull-task";
/// How many attempts ended before this copy of the entry was published.
const ATTEMPTS: &str = "loopabull-attempts";
/// Why an entry is among the dead letters.
const REASON: &str = "loopabull-reason";
/// Kept by the broker: how often a quorum queue has delivered this copy before.
const DELIVERY_COUNT: &str = "x-delivery-count";

/// How long one step on the broker may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A queue in RabbitMQ.
#[derive(Debug)]
pub struct Amqp {
    uri: AMQPUri,
    broker: Broker,
    name: String,
    prefetch: u16,
    // Both locks are held over `await` on purpose: while one caller makes the connection anew, the
    // others wait for it instead of making more.
    publisher: Mutex<Option<Publisher>>,
    consuming: Mutex<Option<Connection>>,
}

/// One worker's end: a channel of its own with its consumer.
#[derive(Debug)]
pub struct Consumer {
    broker: Broker,
    channel: Channel,
    stream: lapin::Consumer,
    dead_letters: String,
}

/// The broker's address without the password, to name it in errors, with the waits on it.
#[derive(Clone, Debug)]
struct Broker(String);

#[derive(Debug)]
struct Publisher {
    connection: Connection,
    channel: Channel,
}

/// What is published: a new entry, a further attempt or a dead letter.
struct Entry {
    queue: String,
    id: String,
    body: Vec<u8>,
    headers: Vec<(&'static str, AMQPValue)>,
}

impl Amqp {
    pub(crate) async fn open(url: &str, name: &str, prefetch: u16) -> Result<Self, QueueError> {
        let uri: AMQPUri = url.parse().map_err(|reason: String| QueueError::Amqp {
            broker: "(not a URL)".to_owned(),
            action: "read the URL",
            source: std::io::Error::other(reason).into(),
        })?;
        let authority = &uri.authority;
        let broker = Broker(format!("{}:{}/{}", authority.host, authority.port, uri.vhost));
        let queue = Self {
            uri,
            broker,
            name: name.to_owned(),
            prefetch,
            publisher: Mutex::new(None),
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
        self.send(&self.entry(message, task, 0)).await
    }

    pub(crate) async fn consume(&self) -> Result<Consumer, QueueError> {
        let mut consuming = self.consuming.lock().await;
        let connection = self.connected(&mut consuming, "work").await?;
        let channel = self.broker.wait("open a channel", connection.create_channel()).await?;
        let qos = channel.basic_qos(self.prefetch, BasicQosOptions::default());
        self.broker.wait("set the prefetch", qos).await?;
        let consume = channel.basic_consume(
            self.name.as_str().into(),
            ShortString::default(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let stream = self.broker.wait("consume the queue", consume).await?;
        let dead_letters = self.dead_letters();
        Ok(Consumer { broker: self.broker.clone(), channel, stream, dead_letters })
    }

    pub(crate) async fn settle(
        &self,
        delivery: &Delivery,
        settlement: &Settlement,
    ) -> Result<(), QueueError> {
        let Delivery { message, task, attempt, tag } = delivery;
        let Tag::Amqp(claim) = tag else {
            unreachable!("a delivery is settled by the queue that made it");
        };
        let lost = || QueueError::LostClaim { message: message.id.to_string() };
        if !claim.acker.usable() {
            // Its channel is gone and the broker delivers it again: a copy would make two of it.
            return Err(lost());
        }
        // A copy is confirmed before the old one is acknowledged: a crash in between makes two of
        // them, never none.
        match settlement {
            Settlement::Ack => (),
            // The pause is the retry ladder's, which does not exist yet: attempts follow at once.
            Settlement::Retry { .. } => self.send(&self.entry(message, task, *attempt)).await?,
            Settlement::GiveBack => self.send(&self.entry(message, task, attempt - 1)).await?,
            Settlement::DeadLetter { reason } => {
                let mut entry = self.entry(message, task, *attempt);
                entry.queue = self.dead_letters();
                entry.headers.push((REASON, long(reason)));
                self.send(&entry).await?;
            }
        }
        // `false`: the channel died under us, and the broker will deliver the entry again.
        match self.broker.wait("acknowledge", claim.acker.ack(BasicAckOptions::default())).await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(lost()),
        }
    }

    pub(crate) async fn depth(&self) -> Result<Depth, QueueError> {
        let mut consuming = self.consuming.lock().await;
        let connection = self.connected(&mut consuming, "work").await?;
        let channel = self.broker.wait("open a channel", connection.create_channel()).await?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let mut counts = [0; 2];
        for (count, name) in counts.iter_mut().zip([self.name.clone(), self.dead_letters()]) {
            let declare = channel.queue_declare(name.into(), passive, FieldTable::default());
            *count = self.broker.wait("look at the queue", declare).await?.message_count().into();
        }
        let [waiting, dead] = counts;
        Ok(Depth { waiting, dead, claimed: None, oldest: None })
    }

    fn dead_letters(&self) -> String {
        format!("{}.dead", self.name)
    }

    fn entry(&self, message: &Message, task: &TaskName, attempts: u32) -> Entry {
        Entry {
            queue: self.name.clone(),
            id: message.id.to_string(),
            body: serde_json::to_vec(message).expect("a message is made of JSON types"),
            headers: vec![(TASK, long(task.as_str())), (ATTEMPTS, AMQPValue::LongUInt(attempts))],
        }
    }

    /// Publishes an entry and waits for the broker's word that it has it.
    async fn send(&self, entry: &Entry) -> Result<(), QueueError> {
        let mut publisher = self.publisher.lock().await;
        if publisher.as_ref().is_none_or(|publisher| !publisher.is_usable()) {
            *publisher = Some(self.make_publisher().await?);
        }
        let channel = publisher.as_ref().expect("it was made above").channel.clone();
        // Let the next publish go out while this one waits for its confirm.
        drop(publisher);
        self.broker.publish(&channel, entry).await
    }

    async fn make_publisher(&self) -> Result<Publisher, QueueError> {
        let connection = self.connect("publish").await?;
        let channel = self.broker.wait("open a channel", connection.create_channel()).await?;
        let confirms = channel.confirm_select(ConfirmSelectOptions::default());
        self.broker.wait("ask for confirms", confirms).await?;
        Ok(Publisher { connection, channel })
    }

    /// Makes the queue and its dead letters, unless they are there, with whatever arguments.
    async fn declare(&self) -> Result<(), QueueError> {
        let mut consuming = self.consuming.lock().await;
        let connection = self.connected(&mut consuming, "work").await?;
        for name in [self.name.clone(), self.dead_letters()] {
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let channel = self.broker.wait("open a channel", connection.create_channel()).await?;
            let look = channel.queue_declare(name.as_str().into(), passive, FieldTable::default());
            if self.broker.wait("look at the queue", look).await.is_ok() {
                continue;
            }
            // The broker closed the first channel when it found no queue.
            let channel = self.broker.wait("open a channel", connection.create_channel()).await?;
            let mut arguments = FieldTable::default();
            arguments.insert("x-queue-type".into(), long("quorum"));
            let options = QueueDeclareOptions::durable();
            let declare = channel.queue_declare(name.into(), options, arguments);
            self.broker.wait("declare the queue", declare).await?;
        }
        Ok(())
    }

    /// Returns the connection in its place, made anew if it is broken.
    async fn connected<'a>(
        &self,
        place: &'a mut Option<Connection>,
        role: &str,
    ) -> Result<&'a Connection, QueueError> {
        if !place.as_ref().is_some_and(|connection| connection.status().connected()) {
            *place = Some(self.connect(role).await?);
        }
        Ok(place.as_ref().expect("it was made above"))
    }

    async fn connect(&self, role: &str) -> Result<Connection, QueueError> {
        let name = format!("loopabull-host ({role})");
        let properties =
            ConnectionProperties::default().with_connection_name(LongString::from(name));
        self.broker.wait("connect", Connection::connect_uri(self.uri.clone(), properties)).await
    }
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
                () = stop.cancelled() => return Ok(None),
            };
            // `None` is the broker's cancel (the queue was deleted, its node went away), not an end.
            let next =
                next.ok_or_else(|| QueueError::Cancelled { broker: self.broker.0.clone() })?;
            let delivery = next.map_err(|source| self.broker.error("receive", source))?;
            match read(&delivery) {
                Ok((message, task, attempt)) => {
                    let tag = Tag::Amqp(Box::new(delivery));
                    return Ok(Some(Delivery { message, task, attempt, tag }));
                }
                Err(reason) => self.set_aside(delivery, &reason).await?,
            }
        }
        Ok(None)
    }

    /// Moves an entry that cannot be read to the dead letters, byte for byte.
    async fn set_aside(
        &self,
        delivery: lapin::message::Delivery,
        reason: &str,
    ) -> Result<(), QueueError> {
        let id = delivery.properties.message_id().as_ref().map(ToString::to_string);
        let entry = Entry {
            queue: self.dead_letters.clone(),
            id: id.unwrap_or_default(),
            body: delivery.data,
            headers: vec![(REASON, long(reason))],
        };
        // On this channel: undecodable bodies are rare, and the worker has nothing else to do.
        let confirms = self.channel.confirm_select(ConfirmSelectOptions::default());
        self.broker.wait("ask for confirms", confirms).await?;
        self.broker.publish(&self.channel, &entry).await?;
        let ack = delivery.acker.ack(BasicAckOptions::default());
        self.broker.wait("acknowledge", ack).await.map(|_| ())
    }
}

impl Publisher {
    fn is_usable(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }
}

impl Broker {
    async fn publish(&self, channel: &Channel, entry: &Entry) -> Result<(), QueueError> {
        let mut headers = FieldTable::default();
        for (name, value) in &entry.headers {
            headers.insert((*name).into(), value.clone());
        }
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/json".into())
            .with_message_id(entry.id.as_str().into())
            .with_headers(headers);
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let queue = ShortString::from(entry.queue.as_str());
        let published = async {
            channel
                .basic_publish(ShortString::default(), queue, options, &entry.body, properties)
                .await?
                .await
        };
        let reason = match self.wait("publish", published).await? {
            Confirmation::Ack(None) => return Ok(()),
            Confirmation::Ack(Some(returned)) => returned.reply_text.to_string(),
            Confirmation::Nack(_) => "it was refused".to_owned(),
            Confirmation::NotRequested => "confirms are off".to_owned(),
        };
        let (broker, queue) = (self.0.clone(), entry.queue.clone());
        Err(QueueError::NotConfirmed { broker, queue, reason })
    }

    /// Waits for a step on the broker, but not for ever.
    async fn wait<T>(
        &self,
        action: &'static str,
        step: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, QueueError> {
        match tokio::time::timeout(PATIENCE, step).await {
            Ok(result) => result.map_err(|source| self.error(action, source)),
            Err(_) => Err(QueueError::Timeout {
                broker: self.0.clone(),
                action,
                seconds: PATIENCE.as_secs(),
            }),
        }
    }

    fn error(&self, action: &'static str, source: lapin::Error) -> QueueError {
        QueueError::Amqp { broker: self.0.clone(), action, source }
    }
}

/// Reads an entry from a delivery, or says why it is none.
fn read(delivery: &lapin::message::Delivery) -> Result<(Message, TaskName, u32), String> {
    let headers = delivery.properties.headers();
    let header = |name: &str| headers.as_ref().and_then(|table| table.inner().get(name));
    let task = match header(TASK) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        _ => return Err(format!("undecodable: no header `{TASK}`")),
    };
    let task = TaskName::try_from(task).map_err(|error| format!("undecodable: {error}"))?;
    let message =
        serde_json::from_slice(&delivery.data).map_err(|error| format!("undecodable: {error}"))?;
    // Ours counts the copies, the broker's counts how often this copy came back from a crash.
    let attempts = number(header(ATTEMPTS)).saturating_add(number(header(DELIVERY_COUNT)));
    Ok((message, task, attempts.saturating_add(1)))
}

fn number(value: Option<&AMQPValue>) -> u32 {
    let number = match value {
        Some(AMQPValue::LongUInt(number)) => i64::from(*number),
        Some(AMQPValue::LongInt(number)) => i64::from(*number),
        Some(AMQPValue::LongLongInt(number)) => *number,
        _ => 0,
    };
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
}

fn long(text: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(text))
}
