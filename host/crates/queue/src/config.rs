//! The settings of the queues: the backend, and the queues in it.

use std::path::PathBuf;
use std::time::Duration;

use loopabull_model::{QueueName, TaskName};

/// The settings of the queues.
#[derive(Clone, Debug)]
pub struct Config {
    pub backend: Backend,
    pub queues: Vec<QueueConfig>,
}

/// Where the queues are stored.
#[derive(Clone, Debug)]
pub enum Backend {
    /// A SQLite file on this machine.
    Embedded {
        file: PathBuf,
    },
    RabbitMq(RabbitMqConfig),
}

/// The settings of the RabbitMQ backend.
#[derive(Clone, Debug)]
pub struct RabbitMqConfig {
    /// `amqp://user:password@host:port/vhost`, or `amqps://…`.
    pub url: String,
    /// How many unsettled deliveries the broker sends to a worker at most. 1 fits slow tasks; components
    /// gain from more.
    pub prefetch: u16,
    /// The broker's HTTP API, `http://user:password@host:15672`, if it may be asked for acknowledgement
    /// timeouts.
    pub management: Option<String>,
    /// The broker's acknowledgement timeout, if the operator configured it here.
    pub ack_timeout: Option<Duration>,
}

/// The settings of one queue.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct QueueConfig {
    pub name: QueueName,
    /// Whether only one worker of all hosts consumes the queue at a time.
    pub exclusive_order: bool,
    /// The tasks that use the queue, as far as we know.
    pub tasks: Vec<TaskName>,
}

impl QueueConfig {
    /// Returns the default settings of a queue.
    pub fn new(name: QueueName) -> Self {
        Self { name, exclusive_order: false, tasks: Vec::new() }
    }
}
