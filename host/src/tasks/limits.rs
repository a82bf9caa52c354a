//! The limits of a task: those of its manifest, or their defaults.

use std::time::Duration;

use bytesize::ByteSize;
use loopabull_model::{Ceiling, Manifest, Task, TaskKind};

/// How long a component may run if its manifest has no timeout.
pub(crate) const COMPONENT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a playbook may run if its manifest has no timeout. It is below RabbitMQ's acknowledgement
/// timeout, which is 30 minutes by default.
pub(crate) const PLAYBOOK_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// How many bytes of memory a component may use if its manifest has no limit.
pub(crate) const COMPONENT_MEMORY: u64 = 64 << 20;

/// Returns the timeout of a run of the task.
pub(crate) fn timeout(task: &Task) -> Duration {
    task.manifest.limits.timeout.unwrap_or(match task.kind {
        TaskKind::Component => COMPONENT_TIMEOUT,
        TaskKind::Playbook => PLAYBOOK_TIMEOUT,
    })
}

/// Sets the limits that a manifest leaves out to their defaults, or to the ceiling if that is lower. A
/// limit in the manifest that exceeds the ceiling is left, and refused elsewhere.
pub(crate) fn apply_ceiling(manifest: &mut Manifest, kind: TaskKind, ceiling: &Ceiling) {
    let (timeout, memory) = match kind {
        TaskKind::Component => (COMPONENT_TIMEOUT, Some(ByteSize(COMPONENT_MEMORY))),
        TaskKind::Playbook => (PLAYBOOK_TIMEOUT, None),
    };
    if let Some(max) = ceiling.timeout {
        manifest.limits.timeout.get_or_insert(max.min(timeout));
    }
    if let Some(max) = ceiling.memory {
        manifest.limits.memory.get_or_insert(memory.map_or(max, |memory| max.min(memory)));
    }
}

/// Returns how many bytes of memory a run of a component may use.
pub(crate) fn memory(task: &Task) -> u64 {
    task.manifest.limits.memory.map_or(COMPONENT_MEMORY, |memory| memory.as_u64())
}
