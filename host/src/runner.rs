//! The runner: component or playbook, by the kind of the task.
//!
//! Owns the defaults of the limits. Knows neither queue nor journal.
//! Before it on the path of a message: the worker. After it: the component runner or the launcher.

use std::sync::Arc;
use std::time::Duration;

use loopabull_model::{Attempt, Message, Outcome, RunId, Task, TaskKind, TaskName};
use loopabull_wasm::ComponentRunner;
use tokio_util::sync::CancellationToken;

use crate::catalog::Catalog;
use crate::playbook::{self, Playbooks};

/// How long a component may run, if its manifest does not say.
pub const COMPONENT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a playbook may run, if its manifest does not say. Below RabbitMQ's acknowledgement
/// timeout, which is 30 minutes by default.
pub const PLAYBOOK_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// How much memory a component may hold, in bytes, if its manifest does not say.
pub const COMPONENT_MEMORY: u64 = 64 << 20;

/// Runs tasks.
pub struct Runner {
    pub components: ComponentRunner,
    /// Or why no playbook can be started here.
    pub playbooks: Result<Playbooks, String>,
    pub catalog: Catalog,
}

impl Runner {
    /// Runs a task on a message. Whatever happens is an outcome. `cancel` ends it early.
    pub async fn run(
        &self,
        name: &TaskName,
        message: &Message,
        run_id: &RunId,
        attempt: u32,
        cancel: &CancellationToken,
    ) -> Attempt {
        let Some(task) = self.catalog.routes.task(name) else {
            return not_started(format!("task `{name}` is not loaded"));
        };
        match task.kind {
            TaskKind::Component => self.run_component(task, message, run_id, attempt, cancel).await,
            TaskKind::Playbook => {
                let limits = &task.manifest.limits;
                let call = playbook::Call {
                    task: name,
                    message,
                    run_id,
                    attempt,
                    timeout: timeout(task),
                    memory: limits.memory.map(|memory| memory.as_u64()),
                    output: limits.output.as_u64(),
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
        task: &Task,
        message: &Message,
        run_id: &RunId,
        attempt: u32,
        cancel: &CancellationToken,
    ) -> Attempt {
        let Some(component) = self.catalog.components.get(&task.name) else {
            return not_started(format!("component `{}` is not loaded", task.name));
        };
        let call = loopabull_wasm::Call {
            message,
            run_id: run_id.clone(),
            attempt,
            timeout: timeout(task),
            memory: task.manifest.limits.memory.map_or(COMPONENT_MEMORY, |memory| memory.as_u64()),
            output: task.manifest.limits.output.as_u64(),
            config: Arc::new(task.manifest.config.clone()),
        };
        tokio::select! {
            attempt = self.components.run(component, call) => attempt,
            // Dropping the run drops its instance, wherever it is: nothing of it is left.
            () = cancel.cancelled() => Attempt::without_output(Outcome::Cancelled),
        }
    }
}

/// Returns how long a run of the task may take.
pub fn timeout(task: &Task) -> Duration {
    task.manifest.limits.timeout.unwrap_or(match task.kind {
        TaskKind::Component => COMPONENT_TIMEOUT,
        TaskKind::Playbook => PLAYBOOK_TIMEOUT,
    })
}

fn not_started(reason: String) -> Attempt {
    Attempt::without_output(Outcome::NotStarted { reason: reason.into() })
}
