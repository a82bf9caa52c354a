//! The durable work queues: one entry for each message and task.
//!
//! Two backends behind one type, held to the same behaviour by one conformance suite
//! (`tests/queues/conformance.rs`): [`Embedded`](embedded::Embedded), a SQLite file for one machine, and
//! [`Amqp`](amqp::Amqp), RabbitMQ for many. All AMQP lives here.
//!
//! What both promise: an entry that `publish` returned for is on disk. It leaves its queue only by
//! [`Queues::settle`], or by a person's verdict on a dead letter. An entry that was received and not
//! settled, because we died, comes back.
//!
//! Before it on the path of a message: ingest. After it: the worker.

mod amqp;
mod backoff;
mod dead_letter;
mod delivery;
mod embedded;
mod error;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use loopabull_model::{Entry, QueueName, Reason, Settlement, TaskName};
use tokio_util::sync::CancellationToken;

pub use amqp::{
    AckTimeout, AckTimeoutSource, Answered, Argument, Binding, Bus, BusBodyError, BusConfig,
    BusDelivery, BusFileError, BusLink, BusQueue, BusState, Change, Exchange, Plan, Standing,
    TlsError, TlsFiles,
};
pub use backoff::Backoff;
pub use dead_letter::{Burial, DeadLetter, MAX_OUTPUT, Verdict};
pub use delivery::{Delivery, Depth, Foreign, Received};
pub use error::QueueError;

/// Where the queues are, and which.
#[derive(Clone, Debug)]
pub struct Config {
    pub place: Place,
    pub queues: Vec<QueueConfig>,
}

/// Where the queues are.
#[derive(Clone, Debug)]
pub enum Place {
    /// In a SQLite file of this machine.
    Embedded { file: PathBuf },
    /// In RabbitMQ.
    Amqp {
        /// `amqp://user:password@host:port/vhost`, or `amqps://…`.
        url: String,
        /// How many deliveries the broker hands a worker before it has settled the first. 1 where
        /// tasks are slow; components gain by more.
        prefetch: u16,
        /// The broker's HTTP API, `http://user:password@host:15672`, if it is to be asked.
        management: Option<String>,
        /// The broker's acknowledgement timeout, if the operator says it.
        ack_timeout: Option<Duration>,
    },
}

/// One queue.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct QueueConfig {
    pub name: QueueName,
    /// Only one worker of all hosts works the queue at a time.
    pub exclusive_order: bool,
    /// The tasks that we know to use it.
    pub tasks: Vec<TaskName>,
}

impl QueueConfig {
    /// A queue without special wishes.
    pub fn new(name: QueueName) -> Self {
        Self { name, exclusive_order: false, tasks: Vec::new() }
    }
}

impl Plan {
    /// Looks at what stands on the broker and changes nothing.
    ///
    /// # Panics
    ///
    /// If the queues are embedded: they have no broker.
    pub async fn of(config: &Config) -> Result<Self, QueueError> {
        amqp::Amqp::plan(config).await
    }
}

/// The durable work queues.
#[derive(Debug)]
pub enum Queues {
    Embedded(embedded::Embedded),
    Amqp(Arc<amqp::Amqp>),
}

/// One worker's end of a queue: at most one delivery at a time.
#[derive(Debug)]
pub enum Consumer {
    Embedded(embedded::Consumer),
    Amqp(Box<amqp::Consumer>),
}

impl Queues {
    /// Opens the queues; makes those that are missing.
    pub async fn open(config: &Config) -> Result<Self, QueueError> {
        match &config.place {
            Place::Embedded { file } => embedded::Embedded::open(file).map(Self::Embedded),
            Place::Amqp { .. } => amqp::Amqp::open(config).await.map(Self::Amqp),
        }
    }

    /// Opens the queues to look at them, and makes none.
    pub async fn look(config: &Config) -> Result<Self, QueueError> {
        match &config.place {
            Place::Embedded { file } => embedded::Embedded::open(file).map(Self::Embedded),
            Place::Amqp { .. } => Ok(Self::Amqp(Arc::new(amqp::Amqp::connect(config).await?))),
        }
    }

    /// Puts an entry into its queue. Returns once it is durable: on disk here, or confirmed by the
    /// broker. After an error it may or may not be in the queue; it may be published again under the
    /// same id, and is worked once.
    pub async fn publish(&self, entry: &Entry) -> Result<(), QueueError> {
        match self {
            Self::Embedded(queues) => queues.publish(entry).await,
            Self::Amqp(queues) => queues.publish(entry).await,
        }
    }

    /// Returns a new worker's end of a queue. The first one of an embedded file makes this process
    /// its only worker, and takes back what an earlier process had received and not settled.
    pub async fn consume(&self, queue: &QueueName) -> Result<Consumer, QueueError> {
        match self {
            Self::Embedded(queues) => queues.consume(queue).await.map(Consumer::Embedded),
            Self::Amqp(queues) => {
                Ok(Consumer::Amqp(Box::new(amqp::Consumer::new(Arc::clone(queues), queue))))
            }
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
            Self::Embedded(queues) => queues.settle(delivery, settlement).await,
            Self::Amqp(queues) => queues.settle(delivery, settlement).await,
        }
    }

    /// Replaces something foreign by the entries that were made of it, none if no task wants it.
    pub async fn replace(&self, foreign: &Foreign, entries: &[Entry]) -> Result<(), QueueError> {
        match self {
            Self::Embedded(_) => unreachable!("an embedded queue holds entries only"),
            Self::Amqp(queues) => queues.replace(foreign, entries).await,
        }
    }

    /// Moves something foreign from a queue to its dead letters.
    pub async fn refuse(
        &self,
        queue: &QueueName,
        foreign: &Foreign,
        reason: &Reason,
    ) -> Result<(), QueueError> {
        match self {
            Self::Embedded(_) => unreachable!("an embedded queue holds entries only"),
            Self::Amqp(queues) => queues.refuse(queue, foreign, reason).await,
        }
    }

    /// Lets what is held of tasks that are awake go on before what came after it, in whichever queue. To
    /// be called again and again: a task may be held by one hand while another releases it.
    pub async fn release(&self, is_awake: impl Fn(&TaskName) -> bool) -> Result<(), QueueError> {
        match self {
            Self::Embedded(queues) => queues.release(is_awake).await,
            Self::Amqp(queues) => queues.release(is_awake).await,
        }
    }

    /// Shows each dead letter of a queue to `judge` and does with it what that says. Returns how many
    /// were requeued or dropped.
    pub async fn judge_dead_letters(
        &self,
        queue: &QueueName,
        judge: impl FnMut(&DeadLetter) -> Verdict + Send,
    ) -> Result<u64, QueueError> {
        match self {
            Self::Embedded(queues) => queues.judge_dead_letters(queue, judge).await,
            Self::Amqp(queues) => queues.judge_dead_letters(queue, judge).await,
        }
    }

    /// Tells what keeps the queues from working, if anything does.
    pub fn trouble(&self) -> Option<String> {
        match self {
            Self::Embedded(_) => None,
            Self::Amqp(queues) => queues.trouble(),
        }
    }

    /// Returns how full a queue is.
    pub async fn depth(&self, queue: &QueueName) -> Result<Depth, QueueError> {
        match self {
            Self::Embedded(queues) => queues.depth(queue).await,
            Self::Amqp(queues) => queues.depth(queue).await,
        }
    }

    /// Returns how long a broker waits for an acknowledgement; none if it waits for ever.
    pub async fn ack_timeout(&self, queue: &QueueName) -> Option<AckTimeout> {
        match self {
            Self::Embedded(_) => None,
            Self::Amqp(queues) => queues.ack_timeout(queue).await,
        }
    }
}

impl Consumer {
    /// Waits for the next delivery; returns `None` once `stop` is cancelled. What is lost on the way,
    /// a connection or a queue, is made anew.
    ///
    /// Do not drop the future before it is ready: cancel `stop`. A claim that is already on its way
    /// to the disk is not undone by forgetting about it.
    pub async fn receive(
        &mut self,
        stop: &CancellationToken,
    ) -> Result<Option<Received>, QueueError> {
        match self {
            Self::Embedded(consumer) => consumer.receive(stop).await,
            Self::Amqp(consumer) => Ok(consumer.receive(stop).await),
        }
    }

    /// Takes nothing more. Call it before the last delivery is settled: a broker that hears of the
    /// settlement first sends the next one.
    pub async fn stop(&mut self) -> Result<(), QueueError> {
        match self {
            Self::Embedded(_) => Ok(()),
            Self::Amqp(consumer) => consumer.stop().await,
        }
    }

    /// Ends the worker's part, after its last delivery is settled. One that is only dropped ends too,
    /// but out of order: others may be given later entries before those that it had been sent ahead.
    pub async fn close(self) -> Result<(), QueueError> {
        match self {
            Self::Embedded(_) => Ok(()),
            Self::Amqp(consumer) => consumer.close().await,
        }
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
