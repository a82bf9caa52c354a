//! What can go wrong with the queues themselves. A task that fails is none of it.

use std::path::PathBuf;

use loopabull_store::StoreError;

use crate::amqp::TlsError;

/// Why a queue could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    #[error("cannot use the queue file")]
    Store(#[from] StoreError),
    #[error("another process works the queue file `{file}`")]
    Locked { file: PathBuf },
    #[error("cannot lock the queue file `{file}`")]
    Lock { file: PathBuf, source: std::io::Error },
    #[error("RabbitMQ at `{broker}`: cannot {action}")]
    Amqp { broker: String, action: &'static str, source: lapin::Error },
    #[error("RabbitMQ at `{broker}`: cannot connect by TLS")]
    Tls { broker: String, source: Box<TlsError> },
    #[error("RabbitMQ at `{broker}`: cannot use the settings: {reason}")]
    Settings { broker: String, reason: String },
    #[error("RabbitMQ at `{broker}`: the queue `{queue}` is gone")]
    Canceled { broker: String, queue: String },
    #[error("RabbitMQ at `{broker}`: no answer within {seconds} s to: {action}")]
    Timeout { broker: String, action: &'static str, seconds: u64 },
    #[error("RabbitMQ at `{broker}`: not connected: {reason}")]
    Away { broker: String, reason: String },
    #[error("RabbitMQ at `{broker}`: the connection was lost while it should {action}")]
    Lost { broker: String, action: &'static str },
    #[error("RabbitMQ at `{broker}`: did not take the message for the queue `{queue}`: {reason}")]
    NotConfirmed { broker: String, queue: String, reason: String },
    #[error("RabbitMQ at `{broker}`: refuses the message for the queue `{queue}`: {reason}")]
    Unacceptable { broker: String, queue: String, reason: String },
    #[error(
        "RabbitMQ at `{broker}`: queue `{queue}` was made without an exclusive order: {reason}"
    )]
    NotExclusive { broker: String, queue: String, reason: String },
    #[error("the claim on the delivery of message `{message}` is lost")]
    LostClaim { message: String },
}

impl QueueError {
    /// Tells whether it is the message itself that is not taken, now and whenever it is tried again.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Unacceptable { .. })
    }
}
