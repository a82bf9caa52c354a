//! The limits of a run, and their defaults.
//!
//! Owns the `[limits]` table of a manifest. The defaults of a playbook's own limits are the host's.

use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

use crate::TaskKind;
use crate::duration::some_duration;

/// How much a run may use.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Wall-clock time of one run, for example `"90s"` or `"20m"`. Default: 30 s for a component,
    /// 15 min for a playbook.
    #[serde(deserialize_with = "some_duration")]
    pub timeout: Option<Duration>,
    /// Memory of one run. For a component the sum of its linear memories and tables, default
    /// 64 MiB; for a playbook the address space of each of its processes, default 1 GiB.
    pub memory: Option<ByteSize>,
    /// Maximum number of processes of a playbook, default 512. They are counted for its user.
    pub processes: Option<u64>,
    /// Maximum number of open descriptors of each process of a playbook, default 1024.
    pub open_files: Option<u64>,
    /// Maximum size of a file that a playbook writes, default 1 GiB.
    pub file_size: Option<ByteSize>,
    /// Maximum size of the output that is kept with the run. Default 64 KiB.
    pub output: ByteSize,
}

impl Limits {
    /// The timeout of a component whose manifest sets none.
    pub const COMPONENT_TIMEOUT: Duration = Duration::from_secs(30);
    /// The timeout of a playbook whose manifest sets none. It is below RabbitMQ's acknowledgement
    /// timeout, which is 30 minutes by default.
    pub const PLAYBOOK_TIMEOUT: Duration = Duration::from_mins(15);
    /// The memory of a component whose manifest sets none.
    pub const COMPONENT_MEMORY: ByteSize = ByteSize::mib(64);

    /// Returns the timeout of a task of this kind whose manifest sets none.
    pub fn default_timeout(kind: TaskKind) -> Duration {
        match kind {
            TaskKind::Component => Self::COMPONENT_TIMEOUT,
            TaskKind::Playbook => Self::PLAYBOOK_TIMEOUT,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeout: None,
            memory: None,
            processes: None,
            open_files: None,
            file_size: None,
            output: ByteSize::kib(64),
        }
    }
}
