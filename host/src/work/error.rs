//! Errors of the daemon's own means, which are retried. A task that fails is an outcome instead.

use loopabull_queue::{AmqpError, QueueError};
use loopabull_store::StoreError;

/// Why a queue or a file of the state directory could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkError {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Bus(#[from] AmqpError),
}
