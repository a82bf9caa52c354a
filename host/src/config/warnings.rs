//! When the daemon warns.

use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

use super::ingest::duration_or_off;

/// The limits for warnings.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Warnings {
    /// Time that a message may wait for a worker. `None` (in the file: `"off"`) if it may wait for ever.
    #[serde(deserialize_with = "duration_or_off")]
    pub wait: Option<Duration>,
    /// Time that a connected source may be silent. `None` (in the file: `"off"`) if it may always be.
    #[serde(deserialize_with = "duration_or_off")]
    pub silence: Option<Duration>,
    /// Free space on the file system of the state directory, below which the daemon warns. 0: never.
    pub free: ByteSize,
    /// Number of runs of a task that fail in a row, with which the daemon warns. 0: never.
    pub failures: u64,
}

impl Default for Warnings {
    fn default() -> Self {
        let hour = Duration::from_hours(1);
        Self { wait: Some(hour), silence: Some(hour), free: ByteSize::gib(1), failures: 3 }
    }
}
