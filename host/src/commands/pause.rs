//! `pause` pauses tasks and queues. `resume` resumes paused tasks and queues, and stopped workers.

use std::collections::BTreeMap;

use anyhow::anyhow;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use hyper::StatusCode;
use loopabull_model::{Pause, PausedBy, QueueName, Target, TaskName};

use crate::api::{Done, PausableKind, PauseRequest, ResumableKind, ResumeRequest, Text};
use crate::commands::client::{Client, ClientError, Remote};
use crate::commands::failure::{DONE, Failure};
use crate::commands::{audit, block_on, print, print_plain};
use crate::config::Config;
use crate::daemon::state_dir;
use crate::observe::status::Status;
use crate::tasks::discovery::Discovery;
use crate::work::pauses::Pauses;

const NOT_THERE: &str =
    "list the tasks with `loopabull-host tasks`, and the queues with `loopabull-host status`";
const PAUSES: &str = "list the pauses with `loopabull-host status`";

/// Pause a task or a queue until it is resumed
///
/// Messages of a paused task wait in order, while other messages are processed. A paused queue is not
/// consumed. The pause survives restarts and applies to this host only; other hosts that consume the
/// queue have their own pauses. Runs in progress continue.
///
/// Example: `loopabull-host pause --task flag-build --reason 'the build system is down'`
#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    target: Paused,
    #[command(flatten)]
    remote: Remote,
    /// Reason that `status` shows
    #[arg(long, value_name = "TEXT", default_value = "by hand", value_parser = NonEmptyStringValueParser::new())]
    reason: String,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Paused {
    /// Pause this task
    #[arg(long, value_name = "NAME", value_parser = |text: &str| TaskName::try_from(text))]
    task: Option<TaskName>,
    /// Pause this queue
    #[arg(long, value_name = "NAME")]
    queue: Option<QueueName>,
}

/// Resume a paused task or queue, or a stopped worker
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    target: Resumed,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Resumed {
    /// Resume this task, which a user or its circuit breaker paused
    #[arg(long, value_name = "NAME", value_parser = |text: &str| TaskName::try_from(text))]
    task: Option<TaskName>,
    /// Resume this queue
    #[arg(long, value_name = "NAME")]
    queue: Option<QueueName>,
    /// Resume this worker, which a task with `on_failure = "stop-worker"` stopped
    #[arg(long, value_name = "N")]
    worker: Option<u32>,
    /// Resume every paused task, queue and worker
    #[arg(long)]
    all: bool,
}

pub(crate) fn pause(config: &Config, args: &PauseArgs) -> Result<u8, Failure> {
    let Paused { task, queue } = &args.target;
    let task = task.clone().map(Target::Task);
    let target =
        task.or(queue.clone().map(Target::Queue)).expect("clap requires a task or a queue");
    if let Some(daemon) = args.remote.wait_for(config)? {
        let kind = match &target {
            Target::Queue(_) => PausableKind::Queue,
            Target::Task(_) | Target::Worker(_) => PausableKind::Task,
        };
        let request = PauseRequest { kind, name: target.name(), reason: Text(args.reason.clone()) };
        let Done { said, .. } = daemon.post("pause", &request).map_err(failure)?;
        print_plain(&(said + "\n"))?;
        return Ok(DONE);
    }
    let tasks = Discovery::read(config, None).tasks;
    let is_known = match &target {
        Target::Task(name) => tasks.iter().any(|task| task.name == *name),
        Target::Queue(name) => config.queues(&tasks).queues.iter().any(|queue| queue.name == *name),
        Target::Worker(_) => false,
    };
    if !is_known {
        return Err(Failure::with_hint(anyhow!("there is no {target}"), NOT_THERE));
    }
    let (audit, pauses) = (audit::open(config)?, open(config)?);
    block_on(pauses.refresh())??;
    if let Some(pause) = pauses.current().get(&target).filter(|pause| !pause.can_be_replaced()) {
        let error = anyhow!("{target} is already paused: {}", pause.reason);
        return Err(Failure::with_hint(error, PAUSES));
    }
    audit::record_around(&audit, "pause", &format!("{target}: {}", args.reason), || {
        let reason = args.reason.as_str().into();
        let is_new = block_on(pauses.pause(target.clone(), PausedBy::Operator, &reason))??;
        Ok((u64::from(is_new), ()))
    })?;
    print(&format!("{target} is paused for the next daemon: none is running\n"))?;
    Ok(DONE)
}

pub(crate) fn resume(config: &Config, args: &ResumeArgs) -> Result<u8, Failure> {
    let Resumed { task, queue, worker, all } = &args.target;
    let named = [
        task.clone().map(Target::Task),
        queue.clone().map(Target::Queue),
        worker.map(Target::Worker),
    ];
    let daemon = args.remote.wait_for(config)?;
    let targets: Vec<Target> = match &daemon {
        _ if !*all => named.into_iter().flatten().collect(),
        Some(daemon) => {
            let status: Status = daemon.get("status", &[]).map_err(failure)?;
            status.pauses.into_iter().map(|pause| pause.target).collect()
        }
        None => stored(config)?.into_keys().collect(),
    };
    if targets.is_empty() {
        print("nothing is paused\n")?;
    }
    for target in targets {
        let said = match &daemon {
            Some(daemon) => resume_at(daemon, &target)?,
            None => resume_in_files(config, &target)?,
        };
        print_plain(&(said + "\n"))?;
    }
    Ok(DONE)
}

fn resume_at(daemon: &Client, target: &Target) -> Result<String, Failure> {
    let kind = match target {
        Target::Task(_) => ResumableKind::Task,
        Target::Queue(_) => ResumableKind::Queue,
        Target::Worker(_) => ResumableKind::Worker,
    };
    let request = ResumeRequest { kind, name: target.name() };
    daemon.post("resume", &request).map(|Done { said, .. }| said).map_err(failure)
}

fn resume_in_files(config: &Config, target: &Target) -> Result<String, Failure> {
    let (audit, pauses) = (audit::open(config)?, open(config)?);
    if !pauses.list()?.contains_key(target) {
        return Err(Failure::with_hint(anyhow!("{target} is not paused"), PAUSES));
    }
    audit::record_around(&audit, "resume", &target.to_string(), || {
        let was_paused = block_on(pauses.resume(target.clone()))??;
        Ok((u64::from(was_paused), ()))
    })?;
    Ok(format!("{target} is resumed"))
}

fn failure(error: ClientError) -> Failure {
    match error.status() {
        Some(StatusCode::NOT_FOUND) => Failure::with_hint(error, NOT_THERE),
        Some(StatusCode::CONFLICT) => Failure::with_hint(error, PAUSES),
        _ => error.into_failure(),
    }
}

fn open(config: &Config) -> Result<Pauses, Failure> {
    state_dir::make(&config.state)?;
    Ok(Pauses::open(&config.state)?)
}

/// Returns the stored pauses.
pub(super) fn stored(config: &Config) -> Result<BTreeMap<Target, Pause>, Failure> {
    Ok(match Pauses::open_to_read(&config.state)? {
        Some(pauses) => pauses.list()?,
        None => BTreeMap::new(),
    })
}
