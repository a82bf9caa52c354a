//! Errors of the queues. The failure of a task is not a queue error.

use std::path::PathBuf;

use loopabull_amqp::AmqpError;
use loopabull_store::StoreError;

/// Error of an operation on the queues.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    #[error("cannot use the file of the embedded queues")]
    Store(#[from] StoreError),
    #[error("another process consumes the queue file `{file}`")]
    Locked { file: PathBuf },
    #[error("cannot lock the file `{file}`")]
    Lock { file: PathBuf, source: std::io::Error },
    #[error("another process still uses the file `{file}` of an earlier version")]
    Earlier { file: PathBuf },
    #[error("the file `{file}` has version {found}, and only version {known} can be taken over")]
    EarlierVersion { file: PathBuf, found: i32, known: i32 },
    #[error("cannot take over the file `{file}` of an earlier version")]
    Unreadable { file: PathBuf, source: rusqlite::Error },
    #[error("cannot delete the file `{file}` of an earlier version, whose entries were taken over")]
    Delete { file: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Amqp(#[from] AmqpError),
    #[error("an earlier entry for queue `{queue}` was not stored")]
    Behind { queue: String },
    #[error(
        "queue `{queue}` in RabbitMQ at `{broker}` was declared without `exclusive_order`: {reason}"
    )]
    NotExclusive { broker: String, queue: String, reason: String },
    #[error("the delivery of message `{message}` can no longer be settled and is redelivered")]
    LostClaim { message: String },
}

impl QueueError {
    /// Returns a hint for the operator.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Earlier { .. } => {
                Some("end the daemon or the command of that version, then start again")
            }
            Self::Store(StoreError::NotUpgraded { .. }) => {
                Some("start or restart the daemon with this version")
            }
            _ => None,
        }
    }

    /// Returns whether a retry is useless because the queue will never accept the message.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Amqp(AmqpError::TooLarge { .. }))
    }
}
