//! `pause` and `resume`: tasks, queues and workers that rest.

use anyhow::anyhow;
use clap::Args;
use loopabull_model::{QueueName, Target, TaskName};

use crate::commands::failure::{DONE, Failure};
use crate::commands::{block_on, print};
use crate::config::Config;
use crate::daemon::state_dir;
use crate::work::pauses::Pauses;

/// Let a task or a queue rest until it is resumed, over restarts too
///
/// The messages of a paused task wait in their order and others go on; of a paused queue nothing is
/// taken. It is for this host: others that work the same queue have pauses of their own. A daemon
/// hears of it within a second; what runs goes on to its end.
#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    target: Paused,
    /// Why, for whoever looks at `status`
    #[arg(long, value_name = "TEXT", default_value = "by hand")]
    reason: String,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Paused {
    /// A task
    #[arg(long, value_name = "NAME", value_parser = |text: &str| TaskName::try_from(text))]
    task: Option<TaskName>,
    /// A queue
    #[arg(long, value_name = "NAME")]
    queue: Option<QueueName>,
}

/// End the rest of a task, a queue or a stopped worker
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    target: Resumed,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Resumed {
    /// A task that was paused, by hand or by itself
    #[arg(long, value_name = "NAME", value_parser = |text: &str| TaskName::try_from(text))]
    task: Option<TaskName>,
    /// A queue that was paused
    #[arg(long, value_name = "NAME")]
    queue: Option<QueueName>,
    /// A worker that was stopped by a task with `on_failure = "stop-worker"`
    #[arg(long, value_name = "N")]
    worker: Option<u32>,
    /// Everything that rests
    #[arg(long)]
    all: bool,
}

pub(crate) fn pause(config: &Config, args: &PauseArgs) -> Result<u8, Failure> {
    let Paused { task, queue } = &args.target;
    let task = task.clone().map(Target::Task);
    let target = task.or(queue.clone().map(Target::Queue)).expect("clap wants one of the two");
    let pauses = open(config)?;
    block_on(pauses.pause(target.clone(), &args.reason.as_str().into()))??;
    print(&format!("{target} is paused\n"))?;
    Ok(DONE)
}

pub(crate) fn resume(config: &Config, args: &ResumeArgs) -> Result<u8, Failure> {
    let Resumed { task, queue, worker, all } = &args.target;
    let pauses = open(config)?;
    let named = [
        task.clone().map(Target::Task),
        queue.clone().map(Target::Queue),
        worker.map(Target::Worker),
    ];
    let targets: Vec<Target> = if *all {
        block_on(pauses.list())??.into_keys().collect()
    } else {
        named.into_iter().flatten().collect()
    };
    if targets.is_empty() {
        print("nothing rests\n")?;
    }
    for target in targets {
        if !block_on(pauses.resume(target.clone()))?? {
            let error = anyhow!("{target} does not rest");
            return Err(Failure::with_hint(error, "`loopabull-host status` shows what does"));
        }
        print(&format!("{target} is resumed\n"))?;
    }
    Ok(DONE)
}

fn open(config: &Config) -> Result<Pauses, Failure> {
    state_dir::make(&config.state)?;
    Ok(Pauses::open(&config.state)?)
}
