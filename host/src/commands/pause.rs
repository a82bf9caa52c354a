//! `pause` pauses tasks and queues. `resume` resumes paused tasks and queues, and stopped workers.

use std::collections::BTreeMap;

use anyhow::anyhow;
use clap::Args;
use loopabull_model::{Pause, PausedBy, QueueName, Target, TaskName};

use crate::commands::failure::{DONE, Failure};
use crate::commands::{audit, block_on, print};
use crate::config::Config;
use crate::daemon::state_dir;
use crate::tasks::discovery::Discovery;
use crate::work::pauses::Pauses;

/// Pause a task or a queue until it is resumed
///
/// Messages of a paused task wait in order, while other messages are processed. A paused queue is not
/// consumed. The pause survives restarts and applies to this host only; other hosts that consume the
/// queue have their own pauses. A running daemon reacts within a second. Runs in progress continue.
///
/// Example: `loopabull-host pause --task flag-build --reason 'the build system is down'`
#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    target: Paused,
    /// Reason that `status` shows
    #[arg(long, value_name = "TEXT", default_value = "by hand")]
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
    if let Target::Task(name) = &target
        && !Discovery::read(config, None).tasks.iter().any(|task| task.name == *name)
    {
        let error = anyhow!("there is no task `{name}`");
        return Err(Failure::with_hint(error, "list the tasks with `loopabull-host tasks`"));
    }
    let (audit, pauses) = (audit::open(config)?, open(config)?);
    block_on(pauses.pause(target.clone(), PausedBy::Operator, &args.reason.as_str().into()))??;
    audit::record(&audit, "pause", &format!("{target}: {}", args.reason), 1)?;
    print(&format!("{target} is paused\n"))?;
    Ok(DONE)
}

pub(crate) fn resume(config: &Config, args: &ResumeArgs) -> Result<u8, Failure> {
    let Resumed { task, queue, worker, all } = &args.target;
    let (audit, pauses) = (audit::open(config)?, open(config)?);
    let named = [
        task.clone().map(Target::Task),
        queue.clone().map(Target::Queue),
        worker.map(Target::Worker),
    ];
    let targets: Vec<Target> = if *all {
        pauses.list()?.into_keys().collect()
    } else {
        named.into_iter().flatten().collect()
    };
    if targets.is_empty() {
        print("nothing is paused\n")?;
    }
    for target in targets {
        if !block_on(pauses.resume(target.clone()))?? {
            let error = anyhow!("{target} is not paused");
            return Err(Failure::with_hint(error, "list the pauses with `loopabull-host status`"));
        }
        audit::record(&audit, "resume", &target.to_string(), 1)?;
        print(&format!("{target} is resumed\n"))?;
    }
    Ok(DONE)
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
