//! An observation is what the daemon sees of itself at one moment. `status`, the pages, `/readyz`, `/warnings` and `/metrics`
//! all show an observation, so they say the same.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use loopabull_model::{Pause, QueueName, Target};
use loopabull_queue::Depth;

use crate::config::Warnings;
use crate::observe::activity::Snapshot;
use crate::observe::history::Trend;
use crate::tables;

/// The state of the daemon, as it sees it at one moment.
pub(crate) struct Observation {
    /// The depths that could be read.
    pub depths: Vec<(QueueName, Depth)>,
    /// How the number of waiting messages changes, for the queues for which it is known.
    pub trends: BTreeMap<QueueName, Trend>,
    pub activity: Snapshot,
    pub pauses: Arc<BTreeMap<Target, Pause>>,
    /// Whether the depth of each queue could be read.
    pub is_complete: bool,
    pub space: Space,
    /// One line for each problem.
    pub problems: Vec<String>,
    /// The limits for warnings.
    pub limits: Warnings,
}

/// The space on the file system of the state directory.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Space {
    /// Free bytes that the daemon can use. `None` if it is not known.
    pub free: Option<u64>,
    /// Number of files that it can still create. `None` if it is not known, or not limited.
    pub files: Option<u64>,
    /// Size of the journal with what is not merged into its file yet, in bytes. `None` if it is not known.
    pub journal: Option<u64>,
}

impl Space {
    /// Reads the space of a state directory. Waits for the disk.
    pub(crate) fn read(state: &Path) -> Self {
        let system = rustix::fs::statvfs(state).ok();
        let journal = tables::path(state);
        let size = |path: &Path| std::fs::metadata(path).map(|file| file.len());
        let unmerged = size(&journal.with_extension("db-wal")).unwrap_or(0);
        Self {
            free: system.as_ref().map(|system| system.f_bavail.saturating_mul(system.f_frsize)),
            files: system
                .as_ref()
                .filter(|system| system.f_files > 0)
                .map(|system| system.f_favail),
            journal: size(&journal).ok().map(|size| size + unmerged),
        }
    }
}
