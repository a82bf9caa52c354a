//! The connection of a bus, with one channel and one consumer.
//!
//! A fault of the connection, the channel or the consumer ends all three. The bus then opens new ones from
//! its configuration, so that all settings apply again.

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

/// Interval at which an idle connection is checked. If a connection misses its heartbeats, lapin does not end
/// the stream of the consumer, so only this check finds the fault.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// Timeout for closing the connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection with one channel and one consumer.
pub(crate) struct BusConnection {
    monitor: Monitor,
    stream: lapin::Consumer,
    /// Name of the queue on the broker.
    pub(crate) queue: String,
}

/// The connection and the channel, watched for faults and alarms.
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

    /// Returns the reason of the broker's alarm, if an alarm blocks publishers.
    pub(crate) fn blocked(&self) -> Option<String> {
        self.monitor.blocked.clone()
    }

    /// Waits for the next delivery. Returns `None` if an alarm of the broker began or ended. After an error,
    /// the connection cannot be used any more.
    ///
    /// The future may be dropped at any time: a delivery that it has not returned stays in the stream.
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

    /// Waits until an alarm of the broker begins or ends. After an error, the connection cannot be used any
    /// more.
    pub(crate) async fn change(&mut self) -> Result<(), AmqpError> {
        let changed = self.monitor.change().await;
        changed.map_err(|error| self.reason(error))
    }

    /// Returns the error at the end of the stream, which is more precise than `otherwise`. If the stream has
    /// no error, returns `otherwise`. Drops the prefetched deliveries.
    fn reason(&mut self, otherwise: AmqpError) -> AmqpError {
        while let Some(Some(next)) = self.stream.next().now_or_never() {
            if let Err(source) = next {
                return self.monitor.broker.error("consume", source);
            }
        }
        otherwise
    }

    /// Stops consuming, and requeues the prefetched deliveries. The channel stays open, so that received
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

    /// Closes the connection. The broker requeues the unsettled deliveries.
    pub(crate) async fn close(self) {
        let close = self.monitor.connection.close(200, ShortString::from("the bus is closed"));
        // The result is ignored, because this connection is not used again.
        drop(tokio::time::timeout(CLOSE_TIMEOUT, close).await);
    }
}

impl Monitor {
    /// Waits until the broker blocks or unblocks publishers. An error means that the connection or the
    /// channel is lost.
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

/// Binds the queue to its exchanges, even if the queue already existed. The Python package does the same.
/// Declaring an existing binding again has no effect.
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
