//! The limits of a run, and their defaults.
//!
//! Defines the `[limits]` table of a manifest, and all defaults for components. For playbooks only the
//! default timeout is here; the defaults for memory, processes, open files and file size are in the crate
//! `playbook`.

use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

use crate::TaskKind;
use crate::duration::some_duration;

/// The limits of a run.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Maximum wall-clock time of one run, for example `"90s"` or `"20m"`. Default: 30 s for a component, 15
    /// min for a playbook.
    #[serde(deserialize_with = "some_duration")]
    pub timeout: Option<Duration>,
    /// Maximum memory of one run. For a component: the sum of its linear memories and tables, default 64 MiB.
    /// For a playbook: the address space of each of its processes, default 1 GiB.
    pub memory: Option<ByteSize>,
    /// Maximum number of processes of a playbook. Default: 512. If the run has no cgroup, the kernel counts
    /// all processes of the user as whom the playbook runs.
    pub processes: Option<u64>,
    /// Maximum number of open file descriptors of each process of a playbook. Default: 1024.
    pub open_files: Option<u64>,
    /// Maximum size of a file that a playbook writes. Default: 1 GiB.
    pub file_size: Option<ByteSize>,
    /// Maximum size of the task's output that is kept with the run. Default: 64 KiB.
    pub output: ByteSize,
}

impl Limits {
    /// The default timeout of a component.
    pub const COMPONENT_TIMEOUT: Duration = Duration::from_secs(30);
    /// The default timeout of a playbook. The value is below RabbitMQ's acknowledgement timeout, which is 30
    /// minutes by default.
    pub const PLAYBOOK_TIMEOUT: Duration = Duration::from_mins(15);
    /// The default memory limit of a component.
    pub const COMPONENT_MEMORY: ByteSize = ByteSize::mib(64);

    /// Returns the default timeout of a task of this kind.
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
