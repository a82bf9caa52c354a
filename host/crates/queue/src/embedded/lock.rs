//! The lock that lets only one process consume the queues of a file.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::error::QueueError;

/// Locks the queues of a file for the only process that consumes them. `None` if another process has locked them.
pub(super) fn try_lock(file: &Path) -> Result<Option<File>, QueueError> {
    let name = file.with_file_name("queue.lock");
    let error = |source| QueueError::Lock { file: name.clone(), source };
    // Another user may own the file. A lock needs no permission to write.
    let lock = File::open(&name).or_else(|_| File::create(&name)).map_err(error)?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(error(source)),
    }
}
