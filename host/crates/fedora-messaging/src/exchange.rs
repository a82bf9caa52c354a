//! A topic exchange of a bus. Messages that tasks emit are published to it in the format of fedora-messaging.
//!
//! This module does not create the exchange, which belongs to the bus. The outbox of the host calls
//! [`Exchange::publish`], and the consumers of the bus receive the messages.

use lapin::options::{BasicPublishOptions, ExchangeDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, ExchangeKind};
use loopabull_amqp::{AmqpError, Broker, Publication, Supervisor};
use loopabull_model::Message;

/// The severity `INFO` of fedora-messaging.
const SEVERITY_INFO: i32 = 20;

/// A topic exchange of a bus.
#[derive(Debug)]
pub struct Exchange {
    supervisor: Supervisor,
    name: String,
}

impl Exchange {
    /// Connects to the bus. Returns an error if the exchange does not exist. After that, reconnects whenever
    /// the connection is lost.
    pub async fn connect(url: &str, name: &str) -> Result<Self, AmqpError> {
        let supervisor = Supervisor::start(Broker::new(url)?).await?;
        let session = supervisor.session().await?;
        let channel = session.open_channel().await?;
        let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let (name, kind, none) = (name.to_owned(), ExchangeKind::Topic, FieldTable::default());
        let find = channel.exchange_declare(name.as_str().into(), kind, options, none);
        session.step("find the exchange", find).await?;
        Ok(Self { supervisor, name })
    }

    /// Publishes a message with its topic as the routing key. Returns when the broker has confirmed the
    /// publish.
    ///
    /// After an error, the caller may publish the message again. The message keeps its id.
    pub async fn publish(&self, message: &Message) -> Result<(), AmqpError> {
        let publication = Publication {
            exchange: &self.name,
            routing_key: message.topic.as_str(),
            body: message.body.as_str().as_bytes(),
            properties: properties(message),
            // The message is not mandatory, because the bus may have no queue for its topic.
            options: BasicPublishOptions::default(),
        };
        self.supervisor.session().await?.publish(&publication).await.map(|_| ())
    }

    /// Returns the current problem with the connection, if there is one.
    pub fn problem(&self) -> Option<String> {
        self.supervisor.problem()
    }
}

/// Returns the AMQP properties that consumers of fedora-messaging read (fedora-messaging 3.x,
/// `Message._encode_routing_key` and `wire_format` in the project's documentation).
fn properties(message: &Message) -> BasicProperties {
    let mut headers = FieldTable::default();
    let mut set = |name: &str, value: AMQPValue| {
        // A header whose name is too long for AMQP is omitted. The message is still published.
        if let Ok(name) = ShortString::try_new(name) {
            headers.insert(name, value);
        }
    };
    for (name, value) in &message.headers {
        set(name, text(value));
    }
    set("fedora_messaging_schema", text("base.message"));
    set("fedora_messaging_severity", AMQPValue::LongInt(SEVERITY_INFO));
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
