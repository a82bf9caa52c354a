//! Runs one playbook for one message.
//!
//! A warm run is forked from a controller, which is a process that has imported Ansible already. A cold run
//! starts `ansible-playbook` as a new process. This module decides which of the two a run is, and what
//! happens when a controller fails. The worker calls this module and records the returned attempt.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use loopabull_launcher::Layer;
use loopabull_model::{
    Attempt, DeniedFile, LayerState, Message, NoHosts, Outcome, Results, RunId, Start, Task, chain,
};
use tokio_util::sync::CancellationToken;

use crate::configure::configure;
use crate::denied_files;
use crate::error::{ControllerError, StartError, VariablesError};
use crate::folder::Folder;
use crate::host::Host;
use crate::plan::Purpose;
use crate::play::Play;
use crate::playbook_dir::PlaybookDir;
use crate::report::{ColdReason, explain, record};
use crate::secrets::Secrets;
use crate::variables::{self, RunFacts};
use crate::warm::{Controller, Controllers, Ran, Reuse};
use crate::watch::{End, Limits};

/// The words of Ansible 2.14 to 2.21 if no host matches `--limit`. It then runs no play, and no callback plugin.
const NO_HOST_IN_LIMIT: &str = "leaves us with no hosts to target";

/// One message for one playbook.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    pub task: &'a Task,
    /// The directory of the playbook.
    pub dir: &'a PlaybookDir,
    pub secrets: Arc<Secrets>,
    pub message: &'a Message,
    pub run_id: &'a RunId,
    /// The number of the attempt, counted from 1.
    pub attempt: u32,
    /// The timeout of the run.
    pub timeout: Duration,
}

impl Call<'_> {
    pub(crate) fn limits(&self) -> Limits<'_> {
        let output = self.task.manifest.limits.output.as_u64();
        Limits { timeout: self.timeout, output, mask: self.secrets.mask() }
    }
}

/// The runner of playbooks.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) host: Host,
    pub(crate) controllers: Controllers,
    /// The kind of start, warm or cold, for manifests that do not name one.
    pub(crate) start: Start,
}

/// A call with the text of its variables file and its limits.
#[derive(Clone, Copy, Debug)]
struct Request<'a> {
    call: &'a Call<'a>,
    play: &'a Play<'a>,
    variables: &'a str,
    limits: Limits<'a>,
}

impl Runner {
    /// Runs a playbook on one message.
    pub(crate) async fn run(&self, call: Call<'_>, cancel: &CancellationToken) -> Attempt {
        let variables = match variables_of(&call) {
            Ok(variables) => variables,
            Err(error) => {
                let reason = error.to_string().into();
                return Attempt::without_output(Outcome::Reject { reason });
            }
        };
        let limits = call.limits();
        // The check of the playbook has read the settings already, unless the configuration has changed since.
        let configured = tokio::select! {
            configured = configure(&self.host, call.task, call.dir) => configured,
            () = cancel.cancelled() => return Attempt::without_output(Outcome::Cancelled),
        };
        let play = match configured {
            Ok(play) => play,
            Err(error) => {
                let is_shortage = error.is_shortage();
                let reason = chain(error).into();
                return Attempt::without_output(match is_shortage {
                    true => Outcome::Shortage { reason },
                    false => Outcome::Unavailable { reason },
                });
            }
        };
        let started = Instant::now();
        let request = Request { call: &call, play: &play, variables: &variables, limits };
        let (end, cold) = match self.run_warm(request, cancel).await {
            Ok(end) => (end, None),
            Err(reason) => {
                // The time already spent on a controller is part of the timeout.
                let left = limits.timeout.saturating_sub(started.elapsed());
                let request = Request { limits: Limits { timeout: left, ..limits }, ..request };
                match self.run_cold(request, cancel).await {
                    Ok(end) => (end, Some(reason.as_str().to_owned())),
                    Err(error) => return Attempt::without_output(error.outcome()),
                }
            }
        };
        let mut attempt = record(end, limits.timeout, &call.secrets);
        if cold.is_some() && has_no_namespaces(&attempt) {
            self.close_controllers("a controller needs namespaces, which this machine lacks").await;
        }
        let denied = self.denied_files(&play, &attempt);
        if let Some(report) = &mut attempt.playbook {
            report.cold = cold;
            report.denied_files = denied;
            attempt.outcome = explain(attempt.outcome, report);
            let options = &call.task.manifest.ansible;
            let is_limited_away = options.limit.is_some()
                && matches!(attempt.outcome, Outcome::Exit { .. })
                && report.results.is_none()
                && attempt.output.text.contains(NO_HOST_IN_LIMIT);
            let is_without_hosts = attempt.outcome.is_success()
                && report.results.as_ref().is_some_and(Results::is_without_hosts);
            if is_limited_away || is_without_hosts {
                attempt.outcome = match options.no_hosts {
                    NoHosts::Failure => Outcome::NoHosts,
                    NoHosts::Success => Outcome::Success,
                };
            }
        }
        attempt
    }

    /// Returns the files that a failed run named and that its sandbox denied.
    fn denied_files(&self, play: &Play<'_>, attempt: &Attempt) -> Vec<DeniedFile> {
        if !matches!(
            attempt.outcome,
            Outcome::Exit { .. } | Outcome::Retry { .. } | Outcome::Unreadable { .. }
        ) {
            return Vec::new();
        }
        // The run had such a plan, unless its files have changed meanwhile.
        let Ok(files) = self.host.files(play) else { return Vec::new() };
        denied_files::find(attempt, &files, &play.task.manifest.grants)
    }

    /// Runs a playbook in a controller. If the playbook was not run, returns the reason why it must be run
    /// cold.
    async fn run_warm(
        &self,
        request: Request<'_>,
        cancel: &CancellationToken,
    ) -> Result<End, ColdReason> {
        let task = request.call.task;
        if task.manifest.ansible.start.unwrap_or(self.start) == Start::Cold {
            return Err(ColdReason::Asked);
        }
        if !self.host.planner.has_python() {
            return Err(ColdReason::NoController);
        }
        let started = Instant::now();
        let key = self.host.planner.key(request.play).map_err(|_| ColdReason::NoController)?;
        let is_frequent = self.controllers.is_frequent(&key);
        let mut controller = match self.controllers.take(&key).await {
            Some(controller) => controller,
            None if !is_frequent => return Err(ColdReason::First),
            None if self.controllers.is_paused() => return Err(ColdReason::NoController),
            None => {
                let timeout = request.limits.timeout;
                let started = self.start_controller(request.play, key, timeout, cancel).await;
                started.map_err(|error| {
                    let name = &task.name;
                    if !matches!(error, ControllerError::Unguarded | ControllerError::Cancelled) {
                        let error = chain(&error);
                        tracing::warn!("cannot start a controller for task `{name}`: {error}");
                    }
                    ColdReason::NoController
                })?
            }
        };
        let left = request.limits.timeout.saturating_sub(started.elapsed());
        let limits = Limits { timeout: left, ..request.limits };
        let arguments =
            input(&self.host, request.call, request.play, request.variables, controller.folder());
        let Ok(arguments) = arguments else {
            let reuse = controller.empty_folder().await;
            self.return_controller(controller, reuse).await;
            return Err(ColdReason::Refused);
        };
        match controller.run(&arguments, limits, cancel).await {
            Ran::Refused => {
                controller.end().await;
                Err(ColdReason::Refused)
            }
            Ran::Ended { end, reuse } => {
                self.return_controller(controller, reuse).await;
                Ok(end)
            }
        }
    }

    async fn return_controller(&self, controller: Controller, reuse: Reuse) {
        match reuse {
            Reuse::Yes => self.controllers.put(controller).await,
            Reuse::No => controller.end().await,
        }
    }

    /// Starts a controller. The start may take at most as long as the run itself.
    async fn start_controller(
        &self,
        play: &Play<'_>,
        key: String,
        timeout: Duration,
        cancel: &CancellationToken,
    ) -> Result<Controller, ControllerError> {
        let folder = self.host.make_folder(&self.controllers.next_name())?;
        let start = async {
            let plan = self.host.planner.controller(play, folder.path())?;
            Controller::start(&self.host.launcher, &plan, key, folder.clone()).await
        };
        let started = tokio::select! {
            started = tokio::time::timeout(timeout, start) => {
                started.unwrap_or(Err(ControllerError::Deadline))
            }
            () = cancel.cancelled() => Err(ControllerError::Cancelled),
        };
        if let Err(error) = &started {
            match error {
                ControllerError::Unguarded => self.close_controllers(&error.to_string()).await,
                ControllerError::Cancelled => (),
                _ => self.controllers.pause(),
            }
            folder.remove().await;
        }
        started
    }

    /// Gives up controllers until the daemon is started again.
    async fn close_controllers(&self, reason: &str) {
        if self.controllers.close().await {
            tracing::info!("every playbook is started cold: {reason}");
        }
    }

    /// Runs a playbook in a new process of `ansible-playbook`.
    async fn run_cold(
        &self,
        request: Request<'_>,
        cancel: &CancellationToken,
    ) -> Result<End, StartError> {
        let call = request.call;
        let folder = self.host.make_folder(call.run_id.as_str())?;
        let arguments = input(&self.host, call, request.play, request.variables, &folder);
        let plan = arguments.and_then(|arguments| {
            self.host.planner.playbook(request.play, folder.path(), arguments)
        });
        self.host.run(folder, plan, request.limits, cancel).await
    }
}

/// Returns whether a run ended without namespaces.
fn has_no_namespaces(attempt: &Attempt) -> bool {
    let mut layers = attempt.playbook.iter().flat_map(|report| &report.layers);
    layers.any(|layer| layer.layer == Layer::Namespaces.name() && layer.state != LayerState::Active)
}

/// Writes the secrets and the variables to files in the folder of a run. Returns the arguments of
/// `ansible-playbook`.
pub(crate) fn input(
    host: &Host,
    call: &Call<'_>,
    play: &Play<'_>,
    variables: &str,
    folder: &Folder,
) -> Result<Vec<OsString>, StartError> {
    folder.write_input(call.task, &call.secrets)?;
    let file = folder.write("given/message.yml", variables)?;
    let mut variables = OsString::from("@");
    variables.push(file);
    let more = ["--extra-vars".into(), variables];
    host.planner.arguments(play, folder.path(), Purpose::Run, more)
}

/// Returns the text of the variables file of a call.
pub(crate) fn variables_of(call: &Call<'_>) -> Result<String, VariablesError> {
    let facts = RunFacts { run_id: call.run_id.as_str(), attempt: call.attempt };
    variables::write(call.message, &call.task.manifest.ansible.variables, facts)
}
