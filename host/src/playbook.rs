//! Runs playbooks: `ansible-playbook` through the launcher, in a small locked room.
//!
//! Owns what a run of a playbook is from the outside: a folder of its own, a plan, a process, what it
//! told and what it came to. The one place where processes are started. A playbook is opened beneath
//! the playbooks directory by the name that our own listing gave it; the message is in a file of the
//! run's own folder, and no part of it stands on the command line or in the environment. What Ansible
//! prints is kept for people and never read by us: its callback plugin tells what was done.

mod error;
pub(crate) mod folder;
mod installed;
mod plan;
mod process;
mod results;
mod warm;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use loopabull_launcher::{Confinement, Environment, Files, Limits, Report, exit};
use loopabull_model::{
    Attempt, Exceeded, LayerReport, Mask, Message, Outcome, Output, PlaybookReport, Results, RunId,
    Start, Task, Variables,
};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::tasks::limits;
use crate::variables::{self, RunFacts};
use folder::Folder;
use plan::Plan;
use process::{End, Ended, Process, Watch};
use warm::{Cold, Controller, Controllers};

pub(crate) use error::PlaybookError;
pub(crate) use plan::{MEMORY, objections};

/// The exit status of Ansible for a playbook that it cannot parse, and for unreachable hosts: of those it
/// tells, 2.14 to 2.21.
const UNREADABLE: i32 = 4;
/// How much of what Ansible says about a playbook that it cannot read is kept, in bytes.
const CHECK_OUTPUT: u64 = 16 << 10;

/// The values of a task's secrets, and what hides them.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    values: BTreeMap<String, String>,
    mask: Mask,
}

/// Runs playbooks.
#[derive(Debug)]
pub(crate) struct Playbooks {
    plan: Plan,
    /// Where each run gets a folder of its own.
    runs: PathBuf,
    launcher: PathBuf,
    start: Start,
    controllers: Controllers,
}

/// A run with what it is given.
struct Job<'a> {
    call: &'a Call<'a>,
    variables: &'a str,
    limits: Watch<'a>,
}

/// One message for one playbook.
#[derive(Clone, Debug)]
pub(crate) struct Call<'a> {
    pub task: &'a Task,
    pub secrets: Arc<Secrets>,
    pub message: &'a Message,
    pub run_id: &'a RunId,
    pub attempt: u32,
}

impl Secrets {
    /// Takes values by their names.
    pub(crate) fn new(values: BTreeMap<String, String>) -> Self {
        Self { mask: Mask::new(&values), values }
    }
}

impl Playbooks {
    /// Finds all that is needed to start playbooks. The state directory must exist; the runs get
    /// their folders in this folder of it.
    pub(crate) fn open(config: &Config, runs: &str) -> Result<Self, PlaybookError> {
        let plan = Plan::open(config)?;
        let runs = folder::make_place(&config.state.join(runs), plan.user.is_some())
            .map_err(|(path, source)| PlaybookError::Runs { path, source })?;
        let launcher = match &config.playbook.launcher {
            Some(path) => path.clone(),
            None => installed::beside_ourselves("loopabull-launch"),
        };
        if !launcher.is_file() {
            return Err(PlaybookError::NoLauncher { path: launcher });
        }
        let controllers = Controllers::new(runner_slots(config), &config.playbook);
        let start = config.playbook.start;
        Ok(Self { plan, runs, launcher, start, controllers })
    }

    /// Runs a playbook on one message. `cancel` ends it early.
    pub(crate) async fn run(&self, call: Call<'_>, cancel: &CancellationToken) -> Attempt {
        let attempt = self.try_to_run(&call, cancel).await;
        attempt.unwrap_or_else(Attempt::without_output)
    }

    /// Lets Ansible read a playbook without running it. Returns what it complained of.
    pub(crate) async fn check(
        &self,
        task: &Task,
        secrets: &Secrets,
        timeout: Duration,
    ) -> Result<(), String> {
        let name = format!("check-{}-{}", std::process::id(), task.name);
        let folder = self.folder(&name).map_err(|error| error.to_string())?;
        let limits = Watch { timeout, output: CHECK_OUTPUT, mask: &secrets.mask };
        let cancel = CancellationToken::new();
        let more = ["--syntax-check".into()];
        let laid_out = folder.write_secrets(secrets);
        let started = laid_out.and_then(|()| self.plan.playbook(task, folder.path(), &more));
        let end = match started
            .and_then(|(plan, environment)| Process::start(&self.launcher, &plan, &environment, 1))
        {
            Ok(process) => Ok(process.watch(limits, &cancel).await),
            Err(error) => Err(error),
        };
        folder.remove().await;
        let attempt = attempt(end.map_err(|error| error.to_string())?, limits.timeout, secrets);
        if attempt.outcome.is_success() {
            return Ok(());
        }
        Err(format!("{}\n{}", attempt.outcome, attempt.output.text))
    }

    /// Tries the confinement of playbooks on a program that does nothing. Returns what became of each
    /// layer on this machine.
    ///
    /// # Errors
    ///
    /// If one that is always needed, or that the configuration requires, cannot be had.
    pub(crate) async fn try_layers(&self) -> Result<Vec<LayerReport>, String> {
        let name = format!("layers-{}", std::process::id());
        let nothing = Secrets::default();
        let folder = self.folder(&name).map_err(|error| error.to_string())?;
        let confinement = Confinement {
            directory: folder.path().join(folder::HOME),
            home: None,
            tmp: None,
            files: Files {
                system: true,
                write: vec![folder.path().join(folder::HOME)],
                read: Vec::new(),
            },
            environment: Vec::new(),
            tcp: vec![plan::SSH],
            limits: Limits { processes: Some(plan::PROCESSES), ..Limits::none() },
            descriptors: Vec::new(),
            program: "/bin/true".into(),
            arguments: Vec::new(),
            landlock_abi: None,
            user: self.plan.user,
            required: self.plan.required.clone(),
            without: self.plan.without.clone(),
        };
        let limits =
            Watch { timeout: Duration::from_secs(10), output: CHECK_OUTPUT, mask: &nothing.mask };
        let end = match Process::start(&self.launcher, &confinement, &Environment::new(), 0) {
            Ok(process) => Ok(process.watch(limits, &CancellationToken::new()).await),
            Err(error) => Err(error.to_string()),
        };
        folder.remove().await;
        let attempt = attempt(end?, limits.timeout, &nothing);
        match attempt.outcome {
            Outcome::Success => Ok(attempt.playbook.unwrap_or_default().layers),
            outcome => Err(outcome.to_string()),
        }
    }

    /// Ends the processes that have Ansible imported and waited long for a run.
    pub(crate) async fn expire(&self) {
        self.controllers.expire().await;
    }

    /// Ends all of them; from now on every run is a cold one.
    pub(crate) async fn close(&self) {
        self.controllers.close().await;
    }

    /// Tells whether a playbook seems to become another user on this machine, which nobody can there.
    pub(crate) fn becomes_here(&self, task: &Task) -> bool {
        self.plan.becomes_here(task)
    }

    async fn try_to_run(
        &self,
        call: &Call<'_>,
        cancel: &CancellationToken,
    ) -> Result<Attempt, Outcome> {
        let not_started =
            |error: anyhow::Error| Outcome::NotStarted { reason: format!("{error:#}").into() };
        let facts = RunFacts { run_id: call.run_id.as_str(), attempt: call.attempt };
        let manifest = &call.task.manifest;
        let variables = match manifest.ansible.variables {
            Variables::Message => variables::write(call.message, facts),
            Variables::TopLevel => variables::write_top_level(call.message, facts),
        };
        let variables =
            variables.map_err(|error| Outcome::Reject { reason: error.to_string().into() })?;
        let limits = Watch {
            timeout: limits::timeout(call.task),
            output: manifest.limits.output.as_u64(),
            mask: &call.secrets.mask,
        };
        let begun = Instant::now();
        let job = Job { call, variables: &variables, limits };
        let (end, cold) = match self.run_warm(&job, cancel).await {
            Ok(end) => (end, None),
            Err(cold) => {
                // What was spent on a controller is not spent again.
                let left = limits.timeout.saturating_sub(begun.elapsed());
                let job = Job { limits: Watch { timeout: left, ..limits }, ..job };
                let end = self.run_cold(&job, cancel).await.map_err(not_started)?;
                (end, Some(cold.as_str().to_owned()))
            }
        };
        let mut attempt = attempt(end, limits.timeout, &call.secrets);
        if let Some(report) = &mut attempt.playbook {
            report.cold = cold;
        }
        Ok(attempt)
    }

    /// Runs it out of a process that has Ansible imported, or tells why not: then nothing was run.
    async fn run_warm(&self, job: &Job<'_>, cancel: &CancellationToken) -> Result<End, Cold> {
        let task = job.call.task;
        if task.manifest.ansible.start.unwrap_or(self.start) == Start::Cold {
            return Err(Cold::Asked);
        }
        if !self.plan.has_python() {
            return Err(Cold::NoController);
        }
        let begun = Instant::now();
        let key = self.plan.key(task).map_err(|_| Cold::NoController)?;
        let is_often = self.controllers.is_often(&key);
        let mut controller = match self.controllers.take(&key).await {
            Some(controller) => controller,
            None if !is_often => return Err(Cold::First),
            None if self.controllers.rests() => return Err(Cold::NoController),
            None => {
                let started = self.start_controller(task, job.limits.timeout, cancel).await;
                started.map_err(|error| {
                    tracing::warn!("no warm Ansible for task `{}`: {error:#}", task.name);
                    Cold::NoController
                })?
            }
        };
        let left = job.limits.timeout.saturating_sub(begun.elapsed());
        let limits = Watch { timeout: left, ..job.limits };
        let arguments = self.lay_out(job, controller.folder());
        let ran = match &arguments {
            Ok(arguments) => controller.run(arguments, limits, cancel).await,
            Err(_) => Ok((None, controller.folder().empty().await)),
        };
        match ran {
            Ok((end, is_good)) => {
                match is_good {
                    true => self.controllers.put(controller).await,
                    false => controller.end().await,
                }
                end.ok_or(Cold::Refused)
            }
            Err(error) => {
                controller.end().await;
                // It had the run, so the run may have done all its work: it is not run again here.
                let reason = format!("the warm Ansible that had it is gone: {error:#}");
                Ok(End::lost(std::io::Error::other(reason)))
            }
        }
    }

    fn folder(&self, name: &str) -> anyhow::Result<Folder> {
        Folder::make(&self.runs.join(name), self.plan.user)
    }

    /// Starts a controller, which must not take longer than the run itself may.
    async fn start_controller(
        &self,
        task: &Task,
        timeout: Duration,
        cancel: &CancellationToken,
    ) -> anyhow::Result<Controller> {
        let folder = self.folder(&self.controllers.name())?;
        let start = async {
            let job = self.plan.controller(task, folder.path())?;
            let job = job.context("`ansible-playbook` is no Python program")?;
            Controller::start(&self.launcher, job, folder.clone()).await
        };
        let started = tokio::select! {
            started = tokio::time::timeout(timeout, start) => {
                started.context("it takes longer than the run may").flatten()
            }
            () = cancel.cancelled() => Err(anyhow::anyhow!("the daemon stops")),
        };
        if started.is_err() {
            self.controllers.rest();
            folder.remove().await;
        }
        started
    }

    /// Runs `ansible-playbook` itself.
    async fn run_cold(&self, job: &Job<'_>, cancel: &CancellationToken) -> anyhow::Result<End> {
        let call = job.call;
        let folder = self.folder(call.run_id.as_str())?;
        let started = self.lay_out(job, &folder).and_then(|arguments| {
            let (mut plan, environment) = self.plan.playbook(call.task, folder.path(), &[])?;
            plan.arguments = arguments;
            Process::start(&self.launcher, &plan, &environment, 1)
        });
        let end = match started {
            Ok(process) => Ok(process.watch(job.limits, cancel).await),
            Err(error) => Err(error),
        };
        folder.remove().await;
        end
    }

    /// Puts secrets and variables into the folder of a run. Returns the arguments of Ansible.
    fn lay_out(&self, job: &Job<'_>, folder: &Folder) -> anyhow::Result<Vec<OsString>> {
        folder.write_secrets(&job.call.secrets)?;
        let variables = folder.write("given/message.yml", job.variables)?;
        let more = ["--extra-vars".into(), plan::at(&variables)];
        Ok(self.plan.playbook(job.call.task, folder.path(), &more)?.0.arguments)
    }
}

/// Returns how many runs there may be at once.
fn runner_slots(config: &Config) -> usize {
    let named = config.queues.values().map(|queue| queue.workers);
    named.chain([config.workers]).map(|workers| workers as usize).sum()
}

/// Makes the record of what a process came to.
fn attempt(end: End, timeout: Duration, secrets: &Secrets) -> Attempt {
    let mask = |text: &str| secrets.mask.text(text);
    let mut playbook = PlaybookReport::default();
    let mut failed = None;
    let mut exited = None;
    for report in end.reports {
        match report {
            Report::Layer { layer, held, detail } => playbook.layers.push(LayerReport {
                layer: layer.to_string(),
                held: plan::state(&held),
                detail: detail.into(),
            }),
            Report::Failed { code, reason } => failed = Some((code, reason)),
            Report::Killed { count } => playbook.killed = count as u64,
            ended @ (Report::Exited { .. } | Report::Signalled { .. }) => exited = Some(ended),
        }
    }
    let results = end.results;
    let outcome = match (end.ended, failed) {
        (_, Some((exit::USAGE, reason))) => {
            not_started(format!("the launcher does not understand us: {reason}"))
        }
        (_, Some((_, reason))) => not_started(reason),
        (Ended::AtDeadline, _) => {
            Outcome::Limit { exceeded: Exceeded::Deadline { allowed: timeout } }
        }
        (Ended::Cancelled, _) => Outcome::Cancelled,
        (Ended::Lost(error), _) => Outcome::Exit { status: error.to_string().into() },
        (Ended::ByItself, _) => match exited {
            Some(Report::Exited { status: 0 }) => Outcome::Success,
            Some(Report::Exited { status }) => of_status(status, results.as_ref()),
            Some(Report::Signalled { signal }) => {
                Outcome::Exit { status: format!("ended by signal {signal}").into() }
            }
            _ => not_started("the launcher ended without a report"),
        },
    };
    playbook.results = results;
    let text = match end.output.dropped {
        0 => mask(&end.output.text),
        _ => secrets.mask.cut_text(&end.output.text),
    };
    let output = Output { text, dropped: end.output.dropped };
    Attempt { output, playbook: Some(playbook), ..Attempt::without_output(outcome) }
}

/// What an exit status of `ansible-playbook` other than 0 means, with what the play told of itself.
fn of_status(status: i32, results: Option<&Results>) -> Outcome {
    let told = results.and_then(Results::last_failure);
    match results {
        Some(results) if results.is_complete && results.is_only_unreachable() => {
            let reason = told.unwrap_or_default();
            Outcome::Retry { reason: format!("unreachable: {reason}").into(), after: None }
        }
        None if status == UNREADABLE => Outcome::Unreadable {
            reason: format!("exit status {status}, the output says why").into(),
        },
        _ => {
            let told = told.map(|told| format!(": {told}"));
            let told = told.unwrap_or_else(|| ", the output says why".to_owned());
            Outcome::Exit { status: format!("exit status {status}{told}").into() }
        }
    }
}

fn not_started(reason: impl Into<loopabull_model::Reason>) -> Outcome {
    Outcome::NotStarted { reason: reason.into() }
}
