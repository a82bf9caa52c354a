//! The runner: component or playbook, by the kind of the task.
//!
//! Owns the defaults of the limits, and which catalog is in force. Knows neither queue nor journal.
//! Before it on the path of a message: the worker. After it: the component runner or the launcher.

use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use loopabull_model::{
    Attempt, Ceiling, Manifest, Message, Outcome, RunId, Task, TaskKind, TaskName,
};
use loopabull_playbook::Playbooks;
use loopabull_wasm::{ComponentRunner, ReadState};
use tokio_util::sync::CancellationToken;

use crate::tasks::catalog::{Catalog, CurrentCatalog};

/// How long a component may run, if its manifest does not say.
pub(crate) const COMPONENT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a playbook may run, if its manifest does not say. Below RabbitMQ's acknowledgement
/// timeout, which is 30 minutes by default.
pub(crate) const PLAYBOOK_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// How much memory a component may hold, in bytes, if its manifest does not say.
pub(crate) const COMPONENT_MEMORY: u64 = 64 << 20;

/// Runs tasks.
pub(crate) struct Runner {
    pub components: Arc<ComponentRunner>,
    /// Or why no playbook can be started here.
    pub playbooks: Result<Playbooks, String>,
    /// The catalog that is in force.
    pub catalog: Arc<CurrentCatalog>,
}

/// One message for one task.
pub(crate) struct Call<'a> {
    pub task: &'a TaskName,
    pub message: &'a Message,
    pub run_id: &'a RunId,
    /// Counted from 1.
    pub attempt: u32,
    /// How to read what the task remembers.
    pub state: ReadState,
}

impl Runner {
    /// Makes a runner of what can run, and a first catalog.
    pub(crate) fn new(
        components: Arc<ComponentRunner>,
        playbooks: Result<Playbooks, String>,
        catalog: Catalog,
    ) -> Self {
        Self { components, playbooks, catalog: Arc::new(CurrentCatalog::new(catalog)) }
    }

    /// Runs a task of a catalog on a message. Whatever happens is an outcome. `cancel` ends it early.
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
                let call = loopabull_playbook::Call {
                    task,
                    secrets: catalog.secrets(name).unwrap_or_default(),
                    message: call.message,
                    run_id: call.run_id,
                    attempt: call.attempt,
                    timeout: timeout(task),
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
            state: call.state,
        };
        tokio::select! {
            attempt = self.components.run(component, call) => attempt,
            // Dropping the run drops its instance, wherever it is: nothing of it is left.
            () = cancel.cancelled() => Attempt::without_output(Outcome::Cancelled),
        }
    }
}

/// Returns how long a run of the task may take.
pub(crate) fn timeout(task: &Task) -> Duration {
    task.manifest.limits.timeout.unwrap_or(match task.kind {
        TaskKind::Component => COMPONENT_TIMEOUT,
        TaskKind::Playbook => PLAYBOOK_TIMEOUT,
    })
}

/// Lowers what a manifest does not say to the ceiling. What it says beyond is refused, not lowered.
pub(crate) fn lower(manifest: &mut Manifest, kind: TaskKind, ceiling: &Ceiling) {
    let (timeout, memory) = match kind {
        TaskKind::Component => (COMPONENT_TIMEOUT, Some(ByteSize(COMPONENT_MEMORY))),
        TaskKind::Playbook => (PLAYBOOK_TIMEOUT, None),
    };
    if let Some(most) = ceiling.timeout {
        manifest.limits.timeout.get_or_insert(most.min(timeout));
    }
    if let Some(most) = ceiling.memory {
        manifest.limits.memory.get_or_insert(memory.map_or(most, |memory| most.min(memory)));
    }
}

/// Returns how many bytes of memory a run of a component may hold.
pub(crate) fn memory(task: &Task) -> u64 {
    task.manifest.limits.memory.map_or(COMPONENT_MEMORY, |memory| memory.as_u64())
}

fn not_started(reason: String) -> Attempt {
    Attempt::without_output(Outcome::NotStarted { reason: reason.into() })
}
