//! A topic exchange of a bus, to which what tasks send is published in the form of fedora-messaging.
//!
//! Does not make the exchange: it is the bus's. Before it on the path of a message: the outbox. After it:
//! whoever is bound to the exchange.

use lapin::options::{BasicPublishOptions, ExchangeDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, ExchangeKind};
use loopabull_model::Message;

use super::broker::Broker;
use super::session::{Parcel, Supervisor};
use crate::QueueError;

/// The severity of fedora-messaging's `INFO`.
const INFO: i32 = 20;

/// A topic exchange of a bus.
#[derive(Debug)]
pub struct Exchange {
    supervisor: Supervisor,
    name: String,
}

impl Exchange {
    /// Connects to the bus, and keeps the connection for ever. An exchange that is not there is an
    /// error.
    pub async fn connect(url: &str, name: &str) -> Result<Self, QueueError> {
        let supervisor = Supervisor::start(Broker::new(url)?).await?;
        let session = supervisor.session().await?;
        let channel = session.channel().await?;
        let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let (name, kind, none) = (name.to_owned(), ExchangeKind::Topic, FieldTable::default());
        let find = channel.exchange_declare(name.as_str().into(), kind, options, none);
        session.step("find the exchange", find).await?;
        Ok(Self { supervisor, name })
    }

    /// Publishes a message under its topic, and returns once the broker has it. After an error it may be
    /// published again: it has the same id.
    pub async fn publish(&self, message: &Message) -> Result<(), QueueError> {
        let parcel = Parcel {
            exchange: &self.name,
            routing_key: message.topic.as_str(),
            body: message.body.as_str().as_bytes(),
            properties: properties(message),
            // Nobody has to be bound.
            options: BasicPublishOptions::default(),
        };
        self.supervisor.session().await?.publish(&parcel).await.map(|_| ())
    }

    /// Tells what is wrong with the connection, if anything is.
    pub fn trouble(&self) -> Option<String> {
        self.supervisor.trouble()
    }
}

/// Returns the properties that fedora-messaging's consumers look at (fedora-messaging 3.x,
/// `Message._encode_routing_key` and `wire_format` in the project's documentation).
fn properties(message: &Message) -> BasicProperties {
    let mut headers = FieldTable::default();
    let mut set = |name: &str, value: AMQPValue| {
        // A name that AMQP cannot carry is not worth the message.
        if let Ok(name) = ShortString::try_new(name) {
            headers.insert(name, value);
        }
    };
    for (name, value) in &message.headers {
        set(name, text(value));
    }
    set("fedora_messaging_schema", text("base.message"));
    set("fedora_messaging_severity", AMQPValue::LongInt(INFO));
    if let Some(sent) = message.sent_at.and_then(|s| jiff::Timestamp::from_second(s).ok()) {
        set("sent-at", text(&sent.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string()));
    }
    BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_message_id(message.id.as_str().into())
        .with_headers(headers)
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}
