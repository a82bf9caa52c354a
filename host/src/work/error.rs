//! Errors of queues, files and the bus. An operation that fails with such an error is retried. The
//! failure of a task is an outcome, not an error.

use loopabull_queue::{AmqpError, QueueError};
use loopabull_store::StoreError;

use crate::work::starts::StartError;

/// An error of a queue, of a file in the state directory, or of the bus.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkError {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Bus(#[from] AmqpError),
}
