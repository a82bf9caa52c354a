//! A bus in the form of fedora-messaging: another broker's topic exchange, consumed through a queue of
//! ours on it.
//!
//! Owns the line to that broker and makes it anew for ever; knows nothing of topics, schemas and JSON.
//! Before it on the path of a message: whoever publishes on the bus. After it: the host's ingest, which
//! acknowledges a delivery once its own queue has confirmed what was made of it.
//!
//! A delivery that was not acknowledged comes again, so a message may come twice and is not lost, if
//! the queue is one that [is kept](BusQueue::is_kept).

mod config;
mod delivery;
mod fedora_file;
mod line;
mod state;

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::broker::{Broker, PATIENCE};
use crate::{Backoff, QueueError};
use line::Line;

pub use config::{Argument, Binding, BusConfig, BusQueue, TlsFiles};
pub use delivery::{Answered, BusBodyError, BusDelivery};
pub use fedora_file::BusFileError;
pub use state::{BusLink, BusState};

/// How long a line must have lived for the next one to be made at once.
const SOLID: Duration = Duration::from_secs(30);

/// The consuming end of a bus.
#[derive(Debug)]
pub struct Bus {
    name: String,
    deliveries: mpsc::Receiver<BusDelivery>,
    state: watch::Receiver<BusState>,
    stop: CancellationToken,
    close: CancellationToken,
    /// Aborted when this is dropped: the connection ends, and what was not answered goes back.
    task: JoinSet<()>,
}

/// What keeps the line.
struct Keeper {
    broker: Broker,
    config: BusConfig,
    deliveries: mpsc::Sender<BusDelivery>,
    state: watch::Sender<BusState>,
    stop: CancellationToken,
    close: CancellationToken,
}

impl Bus {
    /// Begins to consume. A broker that is not there, or refuses us, is no error: it is tried again
    /// for ever, and [`Bus::state`] tells.
    pub fn start(config: &BusConfig) -> Result<Self, QueueError> {
        let broker = Broker::of_bus(config)?;
        let name = broker.name.clone();
        if !config.queue.is_kept() {
            tracing::warn!(
                "bus at `{name}`: what is published while we are not connected is lost: the queue is not kept"
            );
        }
        // What was sent ahead waits in lapin, as much as the prefetch allows.
        let (sender, deliveries) = mpsc::channel(1);
        let (state_sender, state) = watch::channel(BusState::new());
        let (stop, close) = (CancellationToken::new(), CancellationToken::new());
        let keeper = Keeper {
            broker,
            config: config.clone(),
            deliveries: sender,
            state: state_sender,
            stop: stop.clone(),
            close: close.clone(),
        };
        let mut task = JoinSet::new();
        task.spawn(keeper.keep());
        Ok(Self { name, deliveries, state, stop, close, task })
    }

    /// Returns the broker's address without user and password: `host:port/vhost`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits for the next delivery; returns `None` once `stop` is cancelled or [`Bus::stop`] was
    /// called. May be dropped at any time.
    ///
    /// # Panics
    ///
    /// If the task behind it has: a bus must not end in silence.
    pub async fn receive(&mut self, stop: &CancellationToken) -> Option<BusDelivery> {
        loop {
            let delivery = tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                delivery = self.deliveries.recv() => delivery,
            };
            match delivery {
                // One of a line that is gone comes again.
                Some(delivery) if !delivery.is_valid() => (),
                Some(delivery) => return Some(delivery),
                None if self.stop.is_cancelled() => return None,
                None => match self.task.join_next().await {
                    Some(Err(error)) if error.is_panic() => {
                        std::panic::resume_unwind(error.into_panic())
                    }
                    _ => panic!("the task of the bus has ended"),
                },
            }
        }
    }

    /// Returns what is known of the bus, now and whenever it changes.
    pub fn state(&self) -> watch::Receiver<BusState> {
        self.state.clone()
    }

    /// Takes nothing more, and gives back what was sent ahead. Deliveries that were received can still
    /// be answered until the bus is closed or dropped.
    pub async fn stop(&mut self) {
        self.stop.cancel();
        // Everything that the line still sends is taken, so that it does not wait for us.
        let give_back = async {
            while let Some(delivery) = self.deliveries.recv().await {
                // Whatever it says, it goes back with its channel.
                match delivery.give_back().await {
                    Answered::Told | Answered::ComesAgain => (),
                }
            }
        };
        drop(tokio::time::timeout(PATIENCE, give_back).await);
    }

    /// Ends the connection; what was not answered goes back.
    pub async fn close(mut self) {
        self.stop.cancel();
        self.close.cancel();
        self.deliveries.close();
        drop(tokio::time::timeout(PATIENCE, self.task.join_next()).await);
    }
}

impl Keeper {
    async fn keep(self) {
        let mut backoff = Backoff::default();
        while !self.stop.is_cancelled() {
            let opened = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                opened = Line::open(&self.broker, &self.config) => opened,
            };
            let reason = match opened {
                Ok(mut line) => {
                    let since = Instant::now();
                    tracing::info!(
                        "bus at `{}`: queue `{}` is consumed",
                        self.broker.name,
                        line.queue
                    );
                    let Err(reason) = self.pass_on(&mut line).await else {
                        return self.end(line).await;
                    };
                    if since.elapsed() >= SOLID {
                        backoff.reset();
                    }
                    line.close().await;
                    reason
                }
                Err(reason) => reason,
            };
            let reason = super::chain(&reason);
            tracing::warn!("bus: {reason}, trying again");
            self.set(BusLink::Broken { reason });
            backoff.pause(&self.stop).await;
        }
        self.set(BusLink::Stopped);
    }

    /// Passes on what comes; returns when it is told to stop, and with an error at the line's end, also
    /// while nobody receives.
    async fn pass_on(&self, line: &mut Line) -> Result<(), QueueError> {
        loop {
            self.set(BusLink::Consuming { queue: line.queue.clone(), blocked: line.blocked() });
            let place = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                changed = line.change() => {
                    changed?;
                    continue;
                }
                place = self.deliveries.reserve() => place,
            };
            // Nobody is left to receive.
            let Ok(place) = place else { return Ok(()) };
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                next = line.next() => if let Some(raw) = next? {
                    place.send(BusDelivery::new(raw));
                },
            }
        }
    }

    /// Stops, and keeps the channel for answers until the bus is closed.
    async fn end(self, mut line: Line) {
        if let Err(error) = line.stop().await {
            // Then it all goes back with the channel.
            tracing::warn!("bus: {}", super::chain(&error));
        }
        self.set(BusLink::Stopped);
        let Self { deliveries, close, .. } = self;
        drop(deliveries);
        close.cancelled().await;
        line.close().await;
    }

    fn set(&self, link: BusLink) {
        self.state.send_if_modified(|state| state.set(link));
    }
}
