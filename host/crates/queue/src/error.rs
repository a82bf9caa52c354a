//! Errors of the queues themselves. The failure of a task is not among them.

use std::path::PathBuf;

use loopabull_amqp::AmqpError;
use loopabull_store::StoreError;

/// Why a queue did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    #[error("cannot use the queue file")]
    Store(#[from] StoreError),
    #[error("another process consumes the queue file `{file}`")]
    Locked { file: PathBuf },
    #[error("cannot lock the file `{file}`")]
    Lock { file: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Amqp(#[from] AmqpError),
    #[error(
        "RabbitMQ at `{broker}`: queue `{queue}` was declared without an exclusive order: {reason}"
    )]
    NotExclusive { broker: String, queue: String, reason: String },
    #[error("the claim on the delivery of message `{message}` is lost")]
    LostClaim { message: String },
}

impl QueueError {
    /// Returns whether the queue will never accept the message, so that a retry is useless.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Amqp(AmqpError::TooLarge { .. }))
    }
}
