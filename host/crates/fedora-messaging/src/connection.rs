//! What is lost together: a connection of its own for the bus, its channel and its consumer.
//!
//! Whatever goes wrong with one of them ends the line, and the bus makes the next one, as it was
//! configured: nothing is repaired, so nothing can be forgotten.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{FutureExt, Stream, StreamExt};
use lapin::options::{
    BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, Event};

use super::super::broker::Broker;
use super::super::{Raw, table};
use super::config::BusConfig;
use crate::QueueError;

/// How often a line is looked at on which nothing comes: a stream of lapin's does not end with a
/// connection whose heartbeat was missed.
const TICK: Duration = Duration::from_millis(200);
/// How long the end of a line may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// A connection, its channel and its consumer.
pub(super) struct Line {
    pulse: Pulse,
    stream: lapin::Consumer,
    /// As the broker names it.
    pub(super) queue: String,
}

/// By what a line is seen to live.
struct Pulse {
    broker: Broker,
    connection: Connection,
    channel: Channel,
    events: Pin<Box<dyn Stream<Item = Event> + Send>>,
    blocked: Option<String>,
}

impl Line {
    pub(super) async fn open(broker: &Broker, config: &BusConfig) -> Result<Self, QueueError> {
        let connection = broker.connect("bus").await?;
        let events = Box::pin(connection.events_listener());
        let channel = broker.wait("open a channel", connection.create_channel()).await?;
        let queue = declare(broker, &channel, config).await?;
        bind(broker, &channel, config, &queue).await?;
        let qos = channel.basic_qos(config.prefetch.get(), BasicQosOptions::default());
        broker.wait("set the prefetch", qos).await?;
        let consume = channel.basic_consume(
            queue.clone(),
            ShortString::default(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let stream = broker.wait("consume the queue", consume).await?;
        let broker = broker.clone();
        let pulse = Pulse { broker, connection, channel, events, blocked: None };
        Ok(Self { pulse, stream, queue: queue.to_string() })
    }

    /// Why the broker takes no messages, if it says so.
    pub(super) fn blocked(&self) -> Option<String> {
        self.pulse.blocked.clone()
    }

    /// Waits for the next delivery; nothing, if something else has changed. An error is the end of the
    /// line. May be dropped at any time: the stream keeps a delivery that it has not handed out.
    pub(super) async fn next(&mut self) -> Result<Option<Raw>, QueueError> {
        let next = tokio::select! {
            biased;
            next = self.stream.next() => next,
            changed = self.pulse.change() => return match changed {
                Ok(()) => Ok(None),
                Err(error) => Err(self.reason(error)),
            },
        };
        match next {
            Some(Ok(raw)) => Ok(Some(raw)),
            Some(Err(source)) => Err(self.pulse.broker.error("consume", source)),
            // The broker's cancel on a healthy channel: the queue is gone.
            None => Err(QueueError::Canceled {
                broker: self.pulse.broker.name.clone(),
                queue: self.queue.clone(),
            }),
        }
    }

    /// Waits until something but a delivery comes; an error is the end of the line.
    pub(super) async fn change(&mut self) -> Result<(), QueueError> {
        let changed = self.pulse.change().await;
        changed.map_err(|error| self.reason(error))
    }

    /// What the stream says of the end, behind what was sent ahead, or else this.
    fn reason(&mut self, otherwise: QueueError) -> QueueError {
        while let Some(Some(next)) = self.stream.next().now_or_never() {
            if let Err(source) = next {
                return self.pulse.broker.error("consume", source);
            }
        }
        otherwise
    }

    /// Takes nothing more, and gives back what was sent ahead. The channel stays, for answers.
    pub(super) async fn stop(&mut self) -> Result<(), QueueError> {
        let (broker, channel) = (&self.pulse.broker, &self.pulse.channel);
        let cancel = channel.basic_cancel(self.stream.tag(), BasicCancelOptions::default());
        broker.wait("stop consuming", cancel).await?;
        let drain = async {
            while let Some(Ok(raw)) = self.stream.next().await {
                raw.acker.reject(BasicRejectOptions { requeue: true }).await?;
            }
            Ok(())
        };
        broker.wait("give back", drain).await
    }

    /// Ends it: what was not answered goes back.
    pub(super) async fn close(self) {
        let close = self.pulse.connection.close(200, ShortString::from("the line is over"));
        // Whether it works does not matter: nothing of it is used again.
        drop(tokio::time::timeout(GOODBYE, close).await);
    }
}

impl Pulse {
    /// Waits until the broker is blocked, or no longer; an error is the end.
    async fn change(&mut self) -> Result<(), QueueError> {
        loop {
            tokio::select! {
                biased;
                Some(event) = self.events.next() => match event {
                    Event::ConnectionBlocked(reason) => {
                        self.blocked = Some(reason);
                        return Ok(());
                    }
                    Event::ConnectionUnblocked => {
                        self.blocked = None;
                        return Ok(());
                    }
                    Event::Error(source) => return Err(self.broker.error("consume", source)),
                    _ => (),
                },
                () = tokio::time::sleep(TICK) => {
                    if !self.connection.status().connected() || !self.channel.status().connected() {
                        return Err(self.broker.lost("consume"));
                    }
                }
            }
        }
    }
}

async fn declare(
    broker: &Broker,
    channel: &Channel,
    config: &BusConfig,
) -> Result<ShortString, QueueError> {
    let queue = &config.queue;
    let options = QueueDeclareOptions {
        passive: config.passive_declares,
        durable: queue.durable,
        exclusive: queue.exclusive,
        auto_delete: queue.auto_delete,
        nowait: false,
    };
    let action = if config.passive_declares { "find the queue" } else { "make the queue" };
    let arguments = table::table(&queue.arguments).map_err(|reason| broker.unusable(reason))?;
    let name = short(broker, "queue", &queue.name)?;
    let declared = broker.wait(action, channel.queue_declare(name, options, arguments)).await?;
    Ok(declared.name().clone())
}

/// The Python package binds also what it has only found, and a binding that is there may be made again.
async fn bind(
    broker: &Broker,
    channel: &Channel,
    config: &BusConfig,
    queue: &ShortString,
) -> Result<(), QueueError> {
    for binding in &config.bindings {
        let exchange = short(broker, "exchange", &binding.exchange)?;
        for key in &binding.routing_keys {
            let key = short(broker, "routing key", key)?;
            let arguments =
                table::table(&binding.arguments).map_err(|reason| broker.unusable(reason))?;
            let options = QueueBindOptions::default();
            let bind = channel.queue_bind(queue.clone(), exchange.clone(), key, options, arguments);
            broker.wait("bind the queue", bind).await?;
        }
    }
    Ok(())
}

fn short(broker: &Broker, what: &str, text: &str) -> Result<ShortString, QueueError> {
    ShortString::try_new(text).map_err(|error| broker.unusable(format!("{what}: {error}")))
}
