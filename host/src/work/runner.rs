//! The runner: runs a component or a playbook, by the kind of the task.
//!
//! Owns the defaults of the limits, and the current catalog. Knows neither queue nor journal.
//! Before it on the path of a message: the worker. After it: the component runner or the launcher.

use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use loopabull_model::{
    Attempt, Ceiling, Manifest, Message, Outcome, RunId, Task, TaskKind, TaskName,
};
use loopabull_wasm::{ComponentRunner, ReadState};
use tokio_util::sync::CancellationToken;

use crate::playbook::{self, Playbooks};
use crate::tasks::catalog::{Catalog, CurrentCatalog};

/// How long a component may run if its manifest has no timeout.
pub(crate) const COMPONENT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a playbook may run if its manifest has no timeout. It is below RabbitMQ's acknowledgement
/// timeout, which is 30 minutes by default.
pub(crate) const PLAYBOOK_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// How many bytes of memory a component may use if its manifest has no limit.
pub(crate) const COMPONENT_MEMORY: u64 = 64 << 20;

/// Runs tasks.
pub(crate) struct Runner {
    pub components: Arc<ComponentRunner>,
    /// The playbooks, or why none can be started here.
    pub playbooks: Result<Playbooks, String>,
    /// The current catalog.
    pub catalog: Arc<CurrentCatalog>,
}

/// A call of one task with one message.
pub(crate) struct Call<'a> {
    pub task: &'a TaskName,
    pub message: &'a Message,
    pub run_id: &'a RunId,
    /// Counted from 1.
    pub attempt: u32,
    /// Reads the state of the task.
    pub state: ReadState,
}

impl Runner {
    /// Makes a runner with a first catalog.
    pub(crate) fn new(
        components: Arc<ComponentRunner>,
        playbooks: Result<Playbooks, String>,
        catalog: Catalog,
    ) -> Self {
        Self { components, playbooks, catalog: Arc::new(CurrentCatalog::new(catalog)) }
    }

    /// Runs a task of a catalog on a message. Every failure is an outcome. `cancel` ends the run early.
    pub(crate) async fn run(
        &self,
        catalog: &Catalog,
        call: Call<'_>,
        cancel: &CancellationToken,
    ) -> Attempt {
        let name = call.task;
        let Some(task) = catalog.routes.task(name) else {
            return not_started(format!("task `{name}` is not loaded"));
        };
        if let Some(reason) = catalog.refused(name) {
            return not_started(format!("task `{name}` is refused: {reason}"));
        }
        match task.kind {
            TaskKind::Component => self.run_component(catalog, task, call, cancel).await,
            TaskKind::Playbook => {
                let call = playbook::Call {
                    task,
                    secrets: catalog.secrets(name).unwrap_or_default(),
                    message: call.message,
                    run_id: call.run_id,
                    attempt: call.attempt,
                };
                match &self.playbooks {
                    Ok(playbooks) => playbooks.run(call, cancel).await,
                    Err(reason) => not_started(reason.clone()),
                }
            }
        }
    }

    async fn run_component(
        &self,
        catalog: &Catalog,
        task: &Task,
        call: Call<'_>,
        cancel: &CancellationToken,
    ) -> Attempt {
        let Some(component) = catalog.component(&task.name) else {
            return not_started(format!("component `{}` is not loaded", task.name));
        };
        let call = loopabull_wasm::Call {
            message: call.message,
            run_id: call.run_id.clone(),
            attempt: call.attempt,
            timeout: timeout(task),
            memory: memory(task),
            output: task.manifest.limits.output.as_u64(),
            state: Some(call.state),
        };
        tokio::select! {
            attempt = self.components.run(component, call) => attempt,
            // Dropping the run drops its instance at any point, and nothing is left behind.
            () = cancel.cancelled() => Attempt::without_output(Outcome::Cancelled),
        }
    }
}

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

fn not_started(reason: String) -> Attempt {
    Attempt::without_output(Outcome::NotStarted { reason: reason.into() })
}
