//! The queues and their consumers, in either backend.

use loopabull_model::{Entry, QueueName, TaskName};
use tokio_util::sync::CancellationToken;

use crate::config::{Backend, Config};
use crate::dead_letter::{DeadLetter, Verdict};
use crate::delivery::{Claim, Delivery, Received};
use crate::depth::Depth;
use crate::error::QueueError;
use crate::rabbitmq::AckTimeout;
use crate::{embedded, rabbitmq};

/// The durable work queues.
#[derive(Debug)]
pub enum Queues {
    Embedded(embedded::Embedded),
    RabbitMq(rabbitmq::RabbitMq),
}

/// A worker's consumer of one queue.
#[derive(Debug)]
pub enum Consumer {
    Embedded(embedded::Consumer),
    RabbitMq(Box<rabbitmq::Consumer>),
}

impl Queues {
    /// Opens the queues, and creates those that are missing.
    pub async fn open(config: &Config) -> Result<Self, QueueError> {
        match &config.backend {
            Backend::Embedded { file } => embedded::Embedded::open(file).map(Self::Embedded),
            Backend::RabbitMq(settings) => {
                rabbitmq::RabbitMq::open(settings, &config.queues).await.map(Self::RabbitMq)
            }
        }
    }

    /// Opens the queues to look at them. Declares no queue on RabbitMQ.
    pub async fn inspect(config: &Config) -> Result<Self, QueueError> {
        match &config.backend {
            Backend::Embedded { file } => embedded::Embedded::open(file).map(Self::Embedded),
            Backend::RabbitMq(settings) => {
                rabbitmq::RabbitMq::connect(settings, &config.queues).await.map(Self::RabbitMq)
            }
        }
    }

    /// Publishes an entry to its queue. Returns once it is durable: on disk, or confirmed by the broker.
    ///
    /// After an error the entry may or may not be in the queue. It may be published again with the same
    /// id, and is then run once.
    pub async fn publish(&self, entry: &Entry) -> Result<(), QueueError> {
        match self {
            Self::Embedded(queues) => queues.publish(entry).await,
            Self::RabbitMq(queues) => queues.publish(entry).await,
        }
    }

    /// Returns a new consumer of a queue. The first consumer of an embedded file makes this process its
    /// only consumer, and requeues the entries that an earlier process received and did not settle.
    pub async fn consume(&self, queue: &QueueName) -> Result<Consumer, QueueError> {
        match self {
            Self::Embedded(queues) => queues.consume(queue).await.map(Consumer::Embedded),
            Self::RabbitMq(queues) => Ok(Consumer::RabbitMq(Box::new(queues.consume(queue)))),
        }
    }

    /// Delivers the held entries of the tasks that are awake before the entries that came later, in all
    /// queues. Call it repeatedly: one worker may hold an entry while another releases its task.
    pub async fn release(&self, is_awake: impl Fn(&TaskName) -> bool) -> Result<(), QueueError> {
        match self {
            Self::Embedded(queues) => queues.release(is_awake).await,
            Self::RabbitMq(queues) => queues.release(is_awake).await,
        }
    }

    /// Passes each dead letter of a queue to `judge` and carries out its verdict. Returns how many dead
    /// letters were requeued or dropped.
    pub async fn judge_dead_letters(
        &self,
        queue: &QueueName,
        judge: impl FnMut(&DeadLetter) -> Verdict + Send,
    ) -> Result<u64, QueueError> {
        match self {
            Self::Embedded(queues) => queues.judge_dead_letters(queue, judge).await,
            Self::RabbitMq(queues) => queues.judge_dead_letters(queue, judge).await,
        }
    }

    /// Returns the current problem that keeps the queues from working, if there is one.
    pub fn problem(&self) -> Option<String> {
        match self {
            Self::Embedded(_) => None,
            Self::RabbitMq(queues) => queues.problem(),
        }
    }

    /// Returns the number of entries in a queue, by their state.
    pub async fn depth(&self, queue: &QueueName) -> Result<Depth, QueueError> {
        match self {
            Self::Embedded(queues) => queues.depth(queue).await,
            Self::RabbitMq(queues) => queues.depth(queue).await,
        }
    }

    /// Returns how long the broker waits for an acknowledgement; `None` if there is no limit.
    pub async fn ack_timeout(&self, queue: &QueueName) -> Option<AckTimeout> {
        match self {
            Self::Embedded(_) => None,
            Self::RabbitMq(queues) => queues.ack_timeout(queue).await,
        }
    }
}

impl Consumer {
    /// Waits for the next delivery. Returns `None` once `stop` is cancelled. A lost connection or queue
    /// is restored meanwhile.
    ///
    /// Do not drop the future before it is ready; cancel `stop` instead. Dropping it does not undo a
    /// claim that is being written to disk.
    pub async fn receive(
        &mut self,
        stop: &CancellationToken,
    ) -> Result<Option<Received>, QueueError> {
        match self {
            Self::Embedded(consumer) => {
                let received = consumer.receive(stop).await?;
                Ok(received.map(|(delivered, claim)| {
                    Received::Delivery(Delivery::new(delivered, Claim::Embedded(claim)))
                }))
            }
            Self::RabbitMq(consumer) => {
                Ok(consumer.receive(stop).await.map(|received| match received {
                    rabbitmq::Received::Entry(delivered, claim) => {
                        Received::Delivery(Delivery::new(*delivered, Claim::RabbitMq(claim)))
                    }
                    rabbitmq::Received::External(external) => Received::External(external),
                }))
            }
        }
    }

    /// Stops receiving. Call it before the last delivery is settled: a broker that gets the
    /// acknowledgement first sends the next entry.
    pub async fn stop(&mut self) -> Result<(), QueueError> {
        match self {
            Self::Embedded(_) => Ok(()),
            Self::RabbitMq(consumer) => consumer.stop().await,
        }
    }

    /// Closes the consumer, after its last delivery was settled. A consumer that is only dropped ends
    /// too, but out of order: other consumers may receive later entries before the prefetched ones.
    pub async fn close(self) -> Result<(), QueueError> {
        match self {
            Self::Embedded(_) => Ok(()),
            Self::RabbitMq(consumer) => consumer.close().await,
        }
    }
}
