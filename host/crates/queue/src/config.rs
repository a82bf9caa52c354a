//! The settings of the queues: the backend that stores them, and the list of queues.
//!
//! This module reads no configuration file. The host fills in the settings from its own configuration.

use std::path::PathBuf;
use std::time::Duration;

use loopabull_model::{QueueName, TaskName};
use loopabull_store::Schema;

/// The settings of the queues.
#[derive(Clone, Debug)]
pub struct Config {
    pub backend: Backend,
    pub queues: Vec<QueueConfig>,
}

/// The backend that stores the queues.
#[derive(Clone, Debug)]
pub enum Backend {
    /// A SQLite file on this machine. Its schema contains [`TABLES`](crate::TABLES).
    Embedded {
        file: PathBuf,
        schema: Schema,
    },
    RabbitMq(RabbitMqConfig),
}

/// The settings of the RabbitMQ backend.
#[derive(Clone, Debug)]
pub struct RabbitMqConfig {
    /// Address of the broker: `amqp://user:password@host:port/vhost`, or `amqps://…`.
    pub url: String,
    /// Address of the broker's HTTP API, `http://user:password@host:15672`. If set, the host asks the API for
    /// acknowledgement timeouts.
    pub management: Option<String>,
    /// Acknowledgement timeout of the broker, if the operator set it in the host's configuration.
    pub ack_timeout: Option<Duration>,
    /// Time without a delivery after which a worker subscribes to its queue again. See
    /// [`RabbitMqConfig::IDLE_LIMIT`].
    pub idle_limit: Duration,
}

impl RabbitMqConfig {
    /// The usual limit for a subscription without deliveries.
    ///
    /// If another program deletes a quorum queue and creates it again within milliseconds, the broker moves the
    /// consumers to the new queue and then delivers nothing to them (seen on 3.10.8). A new subscription is the
    /// only way to notice it.
    pub const IDLE_LIMIT: Duration = Duration::from_secs(60);
}

/// The settings of one queue.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct QueueConfig {
    pub name: QueueName,
    /// Whether at most one worker, of all workers on all hosts, consumes the queue at a time.
    pub exclusive_order: bool,
    /// Maximum number of unsettled deliveries of one consumer. 1 is right for slow tasks. A
    /// higher number raises the throughput of fast tasks, for example of components.
    pub prefetch: u16,
    /// Tasks that are known to use the queue. The RabbitMQ backend looks for held entries of these tasks when
    /// it connects.
    pub tasks: Vec<TaskName>,
}

impl QueueConfig {
    /// Returns the settings of a queue without exclusive order, with one delivery at a time, and without known tasks.
    pub fn new(name: QueueName) -> Self {
        Self { name, exclusive_order: false, prefetch: 1, tasks: Vec::new() }
    }
}
