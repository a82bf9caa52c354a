//! A connection of its own for the bus, with its channel and its consumer, which are lost together.
//!
//! Any fault of one of them ends all three, and the bus opens new ones from its configuration. Nothing is
//! repaired, so no setting can be forgotten.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{FutureExt, Stream, StreamExt};
use lapin::message::Delivery as RawDelivery;
use lapin::options::{
    BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, Event};
use loopabull_amqp::{AmqpError, Broker, table_from_arguments};

use crate::config::BusConfig;

/// How often an idle connection is checked: a consumer stream of lapin does not end when its connection
/// misses a heartbeat.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// How long closing the connection may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection with its channel and its consumer.
pub(crate) struct BusConnection {
    monitor: Monitor,
    stream: lapin::Consumer,
    /// The queue's name on the broker.
    pub(crate) queue: String,
}

/// The connection and the channel, watched for faults.
struct Monitor {
    broker: Broker,
    connection: Connection,
    channel: Channel,
    events: Pin<Box<dyn Stream<Item = Event> + Send>>,
    blocked: Option<String>,
}

impl BusConnection {
    pub(crate) async fn open(broker: &Broker, config: &BusConfig) -> Result<Self, AmqpError> {
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
        let monitor = Monitor { broker, connection, channel, events, blocked: None };
        Ok(Self { monitor, stream, queue: queue.to_string() })
    }

    /// Returns the reason of the broker's alarm, if it blocks publishers.
    pub(crate) fn blocked(&self) -> Option<String> {
        self.monitor.blocked.clone()
    }

    /// Waits for the next delivery. Returns `None` if the broker's alarm changed. After an error the
    /// connection cannot be used.
    ///
    /// The future may be dropped at any time: the stream keeps a delivery that it has not handed out.
    pub(crate) async fn next(&mut self) -> Result<Option<RawDelivery>, AmqpError> {
        let next = tokio::select! {
            biased;
            next = self.stream.next() => next,
            changed = self.monitor.change() => return match changed {
                Ok(()) => Ok(None),
                Err(error) => Err(self.reason(error)),
            },
        };
        match next {
            Some(Ok(raw)) => Ok(Some(raw)),
            Some(Err(source)) => Err(self.monitor.broker.error("consume", source)),
            None => Err(self.monitor.broker.consumer_cancelled(&self.queue)),
        }
    }

    /// Waits until the broker's alarm changes. After an error the connection cannot be used.
    pub(crate) async fn change(&mut self) -> Result<(), AmqpError> {
        let changed = self.monitor.change().await;
        changed.map_err(|error| self.reason(error))
    }

    /// Returns the error at the end of the stream, after the prefetched deliveries, or else `otherwise`.
    fn reason(&mut self, otherwise: AmqpError) -> AmqpError {
        while let Some(Some(next)) = self.stream.next().now_or_never() {
            if let Err(source) = next {
                return self.monitor.broker.error("consume", source);
            }
        }
        otherwise
    }

    /// Stops consuming and requeues the prefetched deliveries. The channel stays open, so that received
    /// deliveries can be settled.
    pub(crate) async fn stop(&mut self) -> Result<(), AmqpError> {
        let (broker, channel) = (&self.monitor.broker, &self.monitor.channel);
        let cancel = channel.basic_cancel(self.stream.tag(), BasicCancelOptions::default());
        broker.wait("stop consuming", cancel).await?;
        let drain = async {
            while let Some(Ok(raw)) = self.stream.next().await {
                raw.acker.reject(BasicRejectOptions { requeue: true }).await?;
            }
            Ok(())
        };
        broker.wait("requeue the prefetched deliveries", drain).await
    }

    /// Closes the connection. The broker requeues the deliveries that were not settled.
    pub(crate) async fn close(self) {
        let close = self.monitor.connection.close(200, ShortString::from("the bus is closed"));
        // The result does not matter: nothing of this connection is used again.
        drop(tokio::time::timeout(CLOSE_TIMEOUT, close).await);
    }
}

impl Monitor {
    /// Waits until the broker blocks or unblocks publishers. An error means that the connection is lost.
    async fn change(&mut self) -> Result<(), AmqpError> {
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
                () = tokio::time::sleep(CHECK_INTERVAL) => {
                    if !self.connection.status().connected() || !self.channel.status().connected() {
                        return Err(self.broker.connection_lost("consume"));
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
) -> Result<ShortString, AmqpError> {
    let queue = &config.queue;
    let options = QueueDeclareOptions {
        passive: config.passive_declares,
        durable: queue.durable,
        exclusive: queue.exclusive,
        auto_delete: queue.auto_delete,
        nowait: false,
    };
    let action = if config.passive_declares { "find the queue" } else { "create the queue" };
    let arguments =
        table_from_arguments(&queue.arguments).map_err(|reason| broker.invalid_settings(reason))?;
    let name = short(broker, "queue", &queue.name)?;
    let declared = broker.wait(action, channel.queue_declare(name, options, arguments)).await?;
    Ok(declared.name().clone())
}

/// Binds the queue. The Python package also binds a queue that it did not create, and declaring an existing
/// binding again is allowed.
async fn bind(
    broker: &Broker,
    channel: &Channel,
    config: &BusConfig,
    queue: &ShortString,
) -> Result<(), AmqpError> {
    for binding in &config.bindings {
        let exchange = short(broker, "exchange", &binding.exchange)?;
        for key in &binding.routing_keys {
            let key = short(broker, "routing key", key)?;
            let arguments = table_from_arguments(&binding.arguments)
                .map_err(|reason| broker.invalid_settings(reason))?;
            let options = QueueBindOptions::default();
            let bind = channel.queue_bind(queue.clone(), exchange.clone(), key, options, arguments);
            broker.wait("bind the queue", bind).await?;
        }
    }
    Ok(())
}

fn short(broker: &Broker, what: &str, text: &str) -> Result<ShortString, AmqpError> {
    ShortString::try_new(text).map_err(|error| broker.invalid_settings(format!("{what}: {error}")))
}
