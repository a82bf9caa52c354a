//! The runner runs a task, which is a component or a playbook.
//!
//! The runner holds the current catalog, and passes a run to the component runner or to the
//! playbook runner. It does not know the queues and the journal. An attempt of a worker and the
//! command `test` call the runner.

use std::path::PathBuf;
use std::sync::Arc;

use loopabull_model::{
    Attempt, LayerState, Message, Outcome, RunId, Task, TaskKind, TaskName, chain,
};
use loopabull_playbook::{CheckError, Playbooks};
use loopabull_wasm::{ComponentRunner, ReadState};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::modes;
use crate::tasks::catalog::{Catalog, CurrentCatalog};

/// Runs tasks.
pub(crate) struct Runner {
    pub components: Arc<ComponentRunner>,
    /// Playbook runner, or the reason why this host cannot run playbooks.
    pub playbooks: Result<Playbooks, String>,
    /// The current catalog.
    pub catalog: Arc<CurrentCatalog>,
    state: PathBuf,
    /// Whether playbooks run as another user.
    has_other_user: bool,
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
        config: &Config,
        components: Arc<ComponentRunner>,
        playbooks: Result<Playbooks, String>,
        catalog: Catalog,
    ) -> Self {
        Self {
            components,
            playbooks,
            catalog: Arc::new(CurrentCatalog::new(catalog)),
            state: config.state.clone(),
            has_other_user: config.playbook.user.is_some(),
        }
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
        // The task may have been refused since the delivery was admitted.
        if let Some(reason) = catalog.refused(name) {
            return Attempt::without_output(Outcome::Unavailable { reason: reason.into() });
        }
        match task.kind {
            TaskKind::Component => self.run_component(catalog, task, call, cancel).await,
            TaskKind::Playbook => self.run_playbook(catalog, task, call, cancel).await,
        }
    }

    /// Checks a playbook of a catalog with Ansible if it was not checked yet. Afterwards the catalog
    /// knows whether the playbook is refused. Does nothing for a component.
    pub(crate) async fn check(&self, catalog: &Catalog, name: &TaskName) -> Result<(), CheckError> {
        let (Some(task), Some(loaded)) = (catalog.routes.task(name), catalog.playbook(name)) else {
            return Ok(());
        };
        match &self.playbooks {
            Ok(playbooks) => loaded.check(task, playbooks).await,
            Err(reason) => {
                loaded.fail(task, reason.clone());
                Ok(())
            }
        }
    }

    /// Runs a playbook. If the run failed before any result of a host, checks the playbook again. If
    /// the check fails, a file or a grant of the playbook is broken or missing: the task is refused,
    /// and the run is no attempt.
    async fn run_playbook(
        &self,
        catalog: &Catalog,
        task: &Task,
        call: Call<'_>,
        cancel: &CancellationToken,
    ) -> Attempt {
        let Some(loaded) = catalog.playbook(&task.name) else {
            return not_started(format!("playbook `{}` is not loaded", task.name));
        };
        let playbooks = match &self.playbooks {
            Ok(playbooks) => playbooks,
            Err(reason) => return not_started(reason.clone()),
        };
        let call = loopabull_playbook::Call {
            task,
            dir: &loaded.dir,
            secrets: Arc::clone(&loaded.secrets),
            message: call.message,
            run_id: call.run_id,
            attempt: call.attempt,
            timeout: task.timeout(),
        };
        let mut attempt = playbooks.run(call, cancel).await;
        if !is_in_namespaces(&attempt)
            && let Err((path, error)) = modes::restrict(&self.state, self.has_other_user)
        {
            tracing::error!("cannot set the mode of `{}` again: {error}", path.display());
        }
        if !ended_early(&attempt) {
            return attempt;
        }
        let checked = tokio::select! {
            checked = loaded.check_again(task, playbooks) => checked,
            () = cancel.cancelled() => return Attempt::without_output(Outcome::Cancelled),
        };
        match (checked, loaded.failure()) {
            (Err(error), _) => attempt.outcome = Outcome::Shortage { reason: chain(error).into() },
            (Ok(()), Some(reason)) if attempt.outcome.is_attempt() => {
                attempt.outcome = Outcome::Unavailable { reason: reason.into() };
            }
            (Ok(()), _) => (),
        }
        attempt
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

/// Returns whether a playbook could not see the state directory, because it had a root file system of its own.
fn is_in_namespaces(attempt: &Attempt) -> bool {
    let layers = attempt.playbook.iter().flat_map(|playbook| &playbook.layers);
    layers.into_iter().any(|layer| layer.layer == "namespaces" && layer.state == LayerState::Active)
}

/// Returns whether a run did not start, or failed before Ansible reported any result of a host.
fn ended_early(attempt: &Attempt) -> bool {
    let results = attempt.playbook.as_ref().and_then(|report| report.results.as_ref());
    matches!(
        attempt.outcome,
        Outcome::Exit { .. } | Outcome::Unreadable { .. } | Outcome::Unavailable { .. }
    ) && results.is_none_or(|results| results.hosts.is_empty() && !results.is_complete)
}

fn not_started(reason: String) -> Attempt {
    Attempt::without_output(Outcome::NotStarted { reason: reason.into() })
}
