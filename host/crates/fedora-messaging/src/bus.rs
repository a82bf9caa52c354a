//! A bus: a topic exchange on a broker of its own, which we consume through our queue on that broker.
//!
//! This module keeps the connection to that broker, and reconnects whenever the connection is lost. The
//! host's ingest receives the deliveries. Ingest acknowledges a delivery after the work queue has confirmed
//! the entries made from it.
//!
//! An unacknowledged delivery is redelivered, so a message may arrive twice. No message is lost if the queue
//! [survives a disconnect](crate::BusQueue::survives_disconnect).

use std::time::{Duration, Instant};

use loopabull_amqp::{AmqpError, Broker, STEP_TIMEOUT};
use loopabull_backoff::Backoff;
use loopabull_model::chain;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::BusConfig;
use crate::connection::BusConnection;
use crate::delivery::{BusDelivery, Settled};
use crate::state::{BusLink, BusState};

/// Minimum duration of a connection after which the back-off starts again with its shortest wait.
const STABLE_CONNECTION_TIME: Duration = Duration::from_secs(30);

/// A consumer of a bus.
#[derive(Debug)]
pub struct Bus {
    name: String,
    deliveries: mpsc::Receiver<BusDelivery>,
    state: watch::Receiver<BusState>,
    stop: CancellationToken,
    close: CancellationToken,
    /// The Tokio task that keeps the connection. Dropping the bus aborts the task and closes the connection.
    /// The broker then requeues the unsettled deliveries.
    tasks: JoinSet<()>,
}

/// The state of the Tokio task that keeps the connection.
struct Task {
    broker: Broker,
    config: BusConfig,
    deliveries: mpsc::Sender<BusDelivery>,
    state: watch::Sender<BusState>,
    stop: CancellationToken,
    close: CancellationToken,
}

impl Bus {
    /// Starts to consume. Returns an error if the settings are invalid. If the broker is away or refuses the
    /// connection, the bus retries, and [`Bus::state`] shows the reason.
    pub fn start(config: &BusConfig) -> Result<Self, AmqpError> {
        let broker = broker(config)?;
        let name = broker.name().to_owned();
        if !config.queue.survives_disconnect() {
            tracing::warn!(
                "the bus at `{name}` loses messages while the host is not connected, because \
                 the queue is unnamed, exclusive or auto-deleted"
            );
        }
        // One delivery is enough in this channel, because lapin's stream keeps the prefetched deliveries.
        let (sender, deliveries) = mpsc::channel(1);
        let (state_sender, state) = watch::channel(BusState::new());
        let (stop, close) = (CancellationToken::new(), CancellationToken::new());
        let task = Task {
            broker,
            config: config.clone(),
            deliveries: sender,
            state: state_sender,
            stop: stop.clone(),
            close: close.clone(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(task.keep_consuming());
        Ok(Self { name, deliveries, state, stop, close, tasks })
    }

    /// Returns the broker's address without user and password: `host:port/vhost`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits for the next delivery. Returns `None` after `stop` is cancelled or [`Bus::stop`] was called. The
    /// future may be dropped at any time.
    ///
    /// # Panics
    ///
    /// Panics if the Tokio task of the bus has panicked, so that the bus does not end silently.
    pub async fn receive(&mut self, stop: &CancellationToken) -> Option<BusDelivery> {
        loop {
            let delivery = tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                delivery = self.deliveries.recv() => delivery,
            };
            match delivery {
                // The channel of this delivery is closed, so the broker redelivers the message.
                Some(delivery) if !delivery.is_valid() => (),
                Some(delivery) => return Some(delivery),
                None if self.stop.is_cancelled() => return None,
                None => match self.tasks.join_next().await {
                    Some(Err(error)) if error.is_panic() => {
                        std::panic::resume_unwind(error.into_panic())
                    }
                    _ => panic!("the task of the bus has ended"),
                },
            }
        }
    }

    /// Returns the state of the bus, as a receiver that is notified of changes.
    pub fn state(&self) -> watch::Receiver<BusState> {
        self.state.clone()
    }

    /// Stops consuming and requeues the prefetched deliveries. Received deliveries can still be settled
    /// until the bus is closed or dropped.
    pub async fn stop(&mut self) {
        self.stop.cancel();
        // We receive until the Tokio task has dropped its sender, so that the task never waits for space in
        // the channel.
        let requeue = async {
            while let Some(delivery) = self.deliveries.recv().await {
                // After either result, the message is back in the queue on the broker.
                match delivery.requeue().await {
                    Settled::Sent | Settled::ChannelGone => (),
                }
            }
        };
        drop(tokio::time::timeout(STEP_TIMEOUT, requeue).await);
    }

    /// Closes the connection. The broker requeues the deliveries that were not settled.
    pub async fn close(mut self) {
        self.stop.cancel();
        self.close.cancel();
        self.deliveries.close();
        drop(tokio::time::timeout(STEP_TIMEOUT, self.tasks.join_next()).await);
    }
}

impl Task {
    async fn keep_consuming(self) {
        let mut backoff = Backoff::default();
        while !self.stop.is_cancelled() {
            let opened = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                opened = BusConnection::open(&self.broker, &self.config) => opened,
            };
            let reason = match opened {
                Ok(mut connection) => {
                    let since = Instant::now();
                    tracing::info!(
                        "connected to the bus at `{}`; consuming queue `{}`",
                        self.broker.name(),
                        connection.queue
                    );
                    let Err(reason) = self.forward(&mut connection).await else {
                        return self.end(connection).await;
                    };
                    if since.elapsed() >= STABLE_CONNECTION_TIME {
                        backoff.reset();
                    }
                    connection.close().await;
                    reason
                }
                Err(reason) => reason,
            };
            let reason = chain(&reason);
            tracing::warn!("cannot consume the bus: {reason}; retrying");
            self.set(BusLink::Broken { reason });
            backoff.pause(&self.stop).await;
        }
        self.set(BusLink::Stopped);
    }

    /// Forwards deliveries until the bus is stopped. Returns an error when the connection ends, even if the
    /// receiver of the deliveries is busy.
    async fn forward(&self, connection: &mut BusConnection) -> Result<(), AmqpError> {
        loop {
            let (queue, blocked) = (connection.queue.clone(), connection.blocked());
            self.set(BusLink::Consuming { queue, blocked });
            let permit = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                changed = connection.change() => {
                    changed?;
                    continue;
                }
                permit = self.deliveries.reserve() => permit,
            };
            // An error means that the bus was dropped.
            let Ok(permit) = permit else { return Ok(()) };
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                next = connection.next() => if let Some(raw) = next? {
                    permit.send(BusDelivery::new(raw));
                },
            }
        }
    }

    /// Stops consuming. Keeps the channel open until the bus is closed, so that received deliveries can be
    /// settled.
    async fn end(self, mut connection: BusConnection) {
        if let Err(error) = connection.stop().await {
            // We continue, because the broker requeues the prefetched deliveries when the channel closes.
            tracing::warn!("cannot stop consuming the bus: {}", chain(&error));
        }
        self.set(BusLink::Stopped);
        let Self { deliveries, close, .. } = self;
        drop(deliveries);
        close.cancelled().await;
        connection.close().await;
    }

    fn set(&self, link: BusLink) {
        self.state.send_if_modified(|state| state.set(link));
    }
}

/// Returns the broker to which the Python package would connect with the same settings.
fn broker(config: &BusConfig) -> Result<Broker, AmqpError> {
    let mut broker = Broker::new(&config.amqp_url)?
        .with_tls(&config.tls)
        .with_client_property("product", "loopabull-host")?
        .with_client_property("version", env!("CARGO_PKG_VERSION"))?;
    for (name, value) in &config.client_properties {
        broker = broker.with_client_property(name, value)?;
    }
    Ok(broker)
}
