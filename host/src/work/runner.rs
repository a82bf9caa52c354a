//! The runner runs a task, which is a component or a playbook.
//!
//! The runner holds the current catalog, and passes a run to the component runner or to the
//! playbook runner. It does not know the queues and the journal. An attempt of a worker and the
//! command `test` call the runner.

use std::sync::Arc;

use loopabull_model::{Attempt, Message, Outcome, RunId, Task, TaskKind, TaskName};
use loopabull_playbook::Playbooks;
use loopabull_wasm::{ComponentRunner, ReadState};
use tokio_util::sync::CancellationToken;

use crate::tasks::catalog::{Catalog, CurrentCatalog};

/// Runs tasks.
pub(crate) struct Runner {
    pub components: Arc<ComponentRunner>,
    /// Playbook runner, or the reason why this host cannot run playbooks.
    pub playbooks: Result<Playbooks, String>,
    /// The current catalog.
    pub catalog: Arc<CurrentCatalog>,
}

/// The input of a run: the task, the message and the attempt.
pub(crate) struct Call<'a> {
    pub task: &'a TaskName,
    pub message: &'a Message,
    pub run_id: &'a RunId,
    /// Number of the attempt, counted from 1.
    pub attempt: u32,
    /// Function that reads the state of the task.
    pub state: ReadState,
}

impl Runner {
    /// Creates a runner with a first catalog.
    pub(crate) fn new(
        components: Arc<ComponentRunner>,
        playbooks: Result<Playbooks, String>,
        catalog: Catalog,
    ) -> Self {
        Self { components, playbooks, catalog: Arc::new(CurrentCatalog::new(catalog)) }
    }

    /// Runs a task from a catalog on a message. Returns every failure as an outcome. `cancel` ends
    /// the run early.
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
                    timeout: task.timeout(),
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
            timeout: task.timeout(),
            memory: task.memory(),
            output: task.manifest.limits.output.as_u64(),
            state: call.state,
        };
        tokio::select! {
            attempt = self.components.run(component, call) => attempt,
            // The run can be dropped at any point, because its instance is dropped with it.
            () = cancel.cancelled() => Attempt::without_output(Outcome::Cancelled),
        }
    }
}

fn not_started(reason: String) -> Attempt {
    Attempt::without_output(Outcome::NotStarted { reason: reason.into() })
}
