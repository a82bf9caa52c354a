//! The durable work queue: one entry for each message and task.
//!
//! Two backends behind one type, held to the same behaviour by one conformance suite
//! (`tests/conformance.rs`): [`Embedded`](embedded::Embedded), a SQLite file for one machine, and
//! [`Amqp`](amqp::Amqp), RabbitMQ for many. All AMQP lives here.
//!
//! What both promise: an entry that `publish` returned for is on disk. It leaves the queue only by
//! [`Queue::settle`]. An entry that was received and not settled, because we died, comes back, and
//! that attempt counts.
//!
//! Before it on the path of a message: ingest. After it: the worker.

mod amqp;
mod delivery;
mod embedded;
mod error;

use std::path::PathBuf;

use loopabull_model::{Message, Settlement, TaskName};
use tokio_util::sync::CancellationToken;

pub use delivery::{Delivery, Depth};
pub use error::QueueError;

/// Where the queue is.
#[derive(Clone, Debug)]
pub enum Config {
    /// In a SQLite file of this machine.
    Embedded { file: PathBuf },
    /// In RabbitMQ.
    Amqp {
        /// `amqp://user:password@host:port/vhost`, or `amqps://…`.
        url: String,
        /// The queue's name. Dead letters go to the same name with `.dead` behind it.
        name: String,
        /// How many deliveries the broker hands a worker before it has settled the first. 1 where
        /// tasks are slow; components gain by more.
        prefetch: u16,
    },
}

/// The durable work queue.
#[derive(Debug)]
pub enum Queue {
    Embedded(embedded::Embedded),
    Amqp(Box<amqp::Amqp>),
}

/// One worker's end of the queue: at most one delivery at a time.
#[derive(Debug)]
pub enum Consumer {
    Embedded(embedded::Consumer),
    Amqp(Box<amqp::Consumer>),
}

impl Queue {
    /// The name of the default queue.
    pub const DEFAULT_NAME: &str = "workers";

    /// Opens the queue; makes it if there is none.
    pub async fn open(config: &Config) -> Result<Self, QueueError> {
        match config {
            Config::Embedded { file } => embedded::Embedded::open(file).map(Self::Embedded),
            Config::Amqp { url, name, prefetch } => {
                amqp::Amqp::open(url, name, *prefetch).await.map(Box::new).map(Self::Amqp)
            }
        }
    }

    /// Puts a message for a task into the queue. Returns once it is durable: on disk here, or
    /// confirmed by the broker.
    pub async fn publish(&self, message: &Message, task: &TaskName) -> Result<(), QueueError> {
        match self {
            Self::Embedded(queue) => queue.publish(message, task).await,
            Self::Amqp(queue) => queue.publish(message, task).await,
        }
    }

    /// Returns a new worker's end. The first one of an embedded queue makes this process its only
    /// worker, and takes back what an earlier process had received and not settled.
    pub async fn consume(&self) -> Result<Consumer, QueueError> {
        match self {
            Self::Embedded(queue) => queue.consume().await.map(Consumer::Embedded),
            Self::Amqp(queue) => queue.consume().await.map(Box::new).map(Consumer::Amqp),
        }
    }

    /// Carries out what was decided about a delivery. Returns once that is durable.
    ///
    /// After [`QueueError::LostClaim`] there is nothing left to settle: the entry will be delivered
    /// again. After another error it may be tried again.
    pub async fn settle(
        &self,
        delivery: &Delivery,
        settlement: &Settlement,
    ) -> Result<(), QueueError> {
        match self {
            Self::Embedded(queue) => queue.settle(delivery, settlement).await,
            Self::Amqp(queue) => queue.settle(delivery, settlement).await,
        }
    }

    /// Tells what keeps the queue from taking messages although it answers, if anything does.
    pub fn trouble(&self) -> Option<String> {
        match self {
            Self::Embedded(_) => None,
            Self::Amqp(queue) => queue.trouble(),
        }
    }

    /// Returns how full the queue is.
    pub async fn depth(&self) -> Result<Depth, QueueError> {
        match self {
            Self::Embedded(queue) => queue.depth().await,
            Self::Amqp(queue) => queue.depth().await,
        }
    }
}

impl Consumer {
    /// Waits for the next delivery; returns `None` once `stop` is cancelled.
    ///
    /// Do not drop the future before it is ready: cancel `stop`. A claim that is already on its way
    /// to the disk is not undone by forgetting about it.
    pub async fn receive(
        &mut self,
        stop: &CancellationToken,
    ) -> Result<Option<Delivery>, QueueError> {
        match self {
            Self::Embedded(consumer) => consumer.receive(stop).await,
            Self::Amqp(consumer) => consumer.receive(stop).await,
        }
    }

    /// Takes nothing more, and gives back what a broker has sent ahead. Call it before the last
    /// delivery is settled: a broker that hears of the settlement first sends the next one.
    pub async fn stop(&mut self) -> Result<(), QueueError> {
        match self {
            Self::Embedded(_) => Ok(()),
            Self::Amqp(consumer) => consumer.stop().await,
        }
    }
}
