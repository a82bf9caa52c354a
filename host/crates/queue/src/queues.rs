//! The interface of the queues and their consumers. Each function calls the backend in use.

use std::collections::BTreeSet;
use std::sync::Arc;

use loopabull_model::{Entry, EntryId, QueueName, TaskName};
use loopabull_store::Store;
use tokio_util::sync::CancellationToken;

use crate::config::{Backend, Config};
use crate::dead_letter::{DeadLetter, Verdict};
use crate::delivery::{Claim, Delivery, Received};
use crate::depth::{Depth, HeldTask, Release};
use crate::embedded::HasRuns;
use crate::error::QueueError;
use crate::rabbitmq::AckTimeout;
use crate::whereabouts::Whereabouts;
use crate::{embedded, rabbitmq};

/// The durable work queues.
#[derive(Debug)]
pub enum Queues {
    Embedded(embedded::Embedded),
    RabbitMq(rabbitmq::RabbitMq),
}

/// A consumer of one queue, for one worker.
#[derive(Debug)]
pub enum Consumer {
    Embedded(embedded::Consumer),
    RabbitMq(Box<rabbitmq::Consumer>),
}

impl Queues {
    /// Opens the queues, and creates missing queues.
    pub async fn open(config: &Config) -> Result<Self, QueueError> {
        match &config.backend {
            Backend::Embedded { file, schema } => {
                let file = Arc::new(Store::open(file, *schema)?);
                let queues = embedded::Embedded::new(file, None, &config.queues);
                queues.take_over_earlier().await?;
                Ok(Self::Embedded(queues))
            }
            Backend::RabbitMq(settings) => {
                rabbitmq::RabbitMq::open(settings, &config.queues).await.map(Self::RabbitMq)
            }
        }
    }

    /// Does the same as [`Queues::open`], but embedded queues are in this open file. `has_runs` looks for runs of an entry
    /// when it is delivered, for all entries that are claimed together in one transaction.
    pub async fn open_in(
        config: &Config,
        file: Arc<Store>,
        has_runs: HasRuns,
    ) -> Result<Self, QueueError> {
        match &config.backend {
            Backend::Embedded { .. } => {
                let queues = embedded::Embedded::new(file, Some(has_runs), &config.queues);
                queues.take_over_earlier().await?;
                Ok(Self::Embedded(queues))
            }
            Backend::RabbitMq(_) => Self::open(config).await,
        }
    }

    /// Opens the queues for a command, which may run beside a daemon: does not upgrade the file of embedded queues, and does
    /// not create queues in RabbitMQ.
    ///
    /// # Errors
    ///
    /// If another version of this program wrote the file, or if the broker cannot be reached.
    pub async fn inspect(config: &Config) -> Result<Self, QueueError> {
        match &config.backend {
            Backend::Embedded { file, schema } => {
                let file = Arc::new(Store::open_current(file, *schema)?);
                Ok(Self::Embedded(embedded::Embedded::new(file, None, &config.queues)))
            }
            Backend::RabbitMq(settings) => {
                rabbitmq::RabbitMq::connect(settings, &config.queues).await.map(Self::RabbitMq)
            }
        }
    }

    /// Publishes an entry to its queue. Returns when the entry is on disk, or when RabbitMQ has confirmed the
    /// publish.
    ///
    /// After an error, the entry may or may not be in the queue. The caller may publish the entry again with
    /// the same id, because entries with equal ids are deduplicated.
    pub async fn publish(&self, entry: &Entry) -> Result<(), QueueError> {
        match self {
            Self::Embedded(queues) => queues.publish(entry).await,
            Self::RabbitMq(queues) => queues.publish(entry).await,
        }
    }

    /// Publishes entries to their queues, those of one queue in order, and returns the result of each as
    /// [`Queues::publish`] does. The entries share commits or confirms, so this is faster than to publish each alone.
    ///
    /// After the first entry of a queue that is not stored, the later ones of the queue fail with [`QueueError::Behind`]. If
    /// RabbitMQ refuses some of those that it got together, because a queue is full, later ones may be stored
    /// nevertheless. Publish few entries at once if they are large: all are in memory twice.
    pub async fn publish_all(&self, entries: &[&Entry]) -> Vec<Result<(), QueueError>> {
        match self {
            Self::Embedded(queues) => queues.publish_all(entries).await,
            Self::RabbitMq(queues) => queues.publish_all(entries).await,
        }
    }

    /// Wakes the idle workers of this process, after entries were inserted into the file of embedded queues.
    pub fn wake(&self) {
        if let Self::Embedded(queues) = self {
            queues.wake();
        }
    }

    /// Returns a new consumer of a queue.
    ///
    /// With the embedded backend, the first call makes this process the only consumer of the file.
    pub async fn consume(&self, queue: &QueueName) -> Result<Consumer, QueueError> {
        match self {
            Self::Embedded(queues) => queues.consume(queue).await.map(Consumer::Embedded),
            Self::RabbitMq(queues) => Ok(Consumer::RabbitMq(Box::new(queues.consume(queue)))),
        }
    }

    /// Prepares to hold entries of the tasks: looks for entries that earlier processes held, and finds out whether
    /// the broker lets us create the queues for held entries. If it does not, [`Queues::problem`] says so.
    pub async fn add_tasks(&self, queue: &QueueName, tasks: &[TaskName]) -> Result<(), QueueError> {
        match self {
            // The embedded backend finds held entries without the names of their tasks.
            Self::Embedded(_) => Ok(()),
            Self::RabbitMq(queues) => queues.add_tasks(queue, tasks).await,
        }
    }

    /// Releases held entries of all tasks, in all queues, as `release` says. The held entries are delivered
    /// before later entries.
    ///
    /// Call this function repeatedly, because a worker may hold another entry of a task right after the held
    /// entries were released.
    ///
    /// Returns the tasks of which nothing is released. RabbitMQ has no list of its queues for clients. So its backend
    /// returns only tasks of the configuration, of [`Queues::add_tasks`], and of entries that this process held.
    pub async fn release(
        &self,
        release: impl Fn(&TaskName) -> Release,
    ) -> Result<BTreeSet<HeldTask>, QueueError> {
        match self {
            Self::Embedded(queues) => queues.release(release).await,
            Self::RabbitMq(queues) => queues.release(release).await,
        }
    }

    /// Ends the delays of a queue: all delayed entries are due now. Returns their number.
    pub async fn end_delays(&self, queue: &QueueName) -> Result<u64, QueueError> {
        match self {
            Self::Embedded(queues) => queues.end_delays(queue).await,
            Self::RabbitMq(queues) => queues.end_delays(queue).await,
        }
    }

    /// Passes each dead letter of a queue to `judge` and carries out the verdict. Returns the number of dead
    /// letters that were requeued or dropped.
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

    /// Returns the current problem of the queues, if there is one.
    pub fn problem(&self) -> Option<String> {
        match self {
            Self::Embedded(queues) => queues.problem(),
            Self::RabbitMq(queues) => queues.problem(),
        }
    }

    /// Returns the number of entries in a queue, by state.
    pub async fn depth(&self, queue: &QueueName) -> Result<Depth, QueueError> {
        match self {
            Self::Embedded(queues) => queues.depth(queue).await,
            Self::RabbitMq(queues) => queues.depth(queue).await,
        }
    }

    /// Returns where an entry is, or `None` if it is in no queue. For RabbitMQ, which does not tell, always `None`.
    pub async fn whereabouts(&self, entry: &EntryId) -> Result<Option<Whereabouts>, QueueError> {
        match self {
            Self::Embedded(queues) => queues.whereabouts(entry).await,
            Self::RabbitMq(_) => Ok(None),
        }
    }

    /// Returns whether [`Queues::whereabouts`] knows where entries are.
    pub fn knows_whereabouts(&self) -> bool {
        matches!(self, Self::Embedded(_))
    }

    /// Returns the acknowledgement timeout of a queue; `None` if deliveries may stay unsettled for ever.
    pub async fn ack_timeout(&self, queue: &QueueName) -> Option<AckTimeout> {
        match self {
            Self::Embedded(_) => None,
            Self::RabbitMq(queues) => queues.ack_timeout(queue).await,
        }
    }
}

impl Consumer {
    /// Waits for the next delivery. Returns `None` after `stop` is cancelled. While waiting, restores a lost
    /// connection or a deleted queue. To stop waiting, cancel `stop`; do not drop the future.
    pub async fn receive(
        &mut self,
        stop: &CancellationToken,
    ) -> Result<Option<Received>, QueueError> {
        match self {
            Self::Embedded(consumer) => {
                let received = consumer.receive(stop).await?;
                Ok(received.map(|(delivered, claim)| {
                    Received::Delivery(Box::new(Delivery::new(delivered, Claim::Embedded(claim))))
                }))
            }
            Self::RabbitMq(consumer) => {
                Ok(consumer.receive(stop).await.map(|received| match received {
                    rabbitmq::Received::Entry(delivered, claim) => Received::Delivery(Box::new(
                        Delivery::new(*delivered, Claim::RabbitMq(claim)),
                    )),
                    rabbitmq::Received::External(externals) => Received::External(externals),
                }))
            }
        }
    }

    /// Lets other consumers have the entries that this one has claimed in advance. RabbitMQ's prefetched entries stay: it
    /// cannot take them back without ending the consumer.
    pub fn give_back(&mut self) {
        match self {
            Self::Embedded(consumer) => consumer.give_back(),
            Self::RabbitMq(_) => (),
        }
    }

    /// Stops receiving. Call `stop` as soon as no further delivery is wanted, because RabbitMQ sends the next
    /// entry after each acknowledgement.
    pub async fn stop(&mut self) -> Result<(), QueueError> {
        match self {
            Self::Embedded(consumer) => {
                consumer.give_back();
                Ok(())
            }
            Self::RabbitMq(consumer) => consumer.stop().await,
        }
    }

    /// Closes the consumer. Call `close` after the last delivery is settled. If a consumer is dropped without
    /// `close`, its prefetched entries may be redelivered after later entries.
    pub async fn close(self) -> Result<(), QueueError> {
        match self {
            Self::Embedded(_) => Ok(()),
            Self::RabbitMq(consumer) => consumer.close().await,
        }
    }
}
