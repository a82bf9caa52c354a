//! `test`: one message through its task, now.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::Args;
use loopabull_model::{Attempt, Message, RunId, Task, TaskName};
use loopabull_wasm::ComponentRunner;
use tokio_util::sync::CancellationToken;

use crate::catalog::{Catalog, Listing};
use crate::cli::{DONE, FAILED, Failure};
use crate::commands::inject::{messages_in, read};
use crate::commands::{block_on, print, print_plain};
use crate::config::Config;
use crate::playbook::Playbooks;
use crate::runner::Runner;
use crate::state;

/// Run one recorded message through its task now, without bus and queue
///
/// Prints the task's output and what the attempt came to. Nothing is recorded. Exit status 0 only
/// if the task succeeded.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// The name of a task, or a topic that just one task wants
    #[arg(value_name = "TASK-OR-TOPIC")]
    task: String,
    /// A file with one message, or `-` for standard input
    #[arg(value_name = "MESSAGE.json")]
    message: PathBuf,
}

pub(crate) fn run(config: &Config, args: &TestArgs) -> Result<u8, Failure> {
    let text = read(&args.message)?;
    let message = messages_in(&text).next().context("there is no JSON document in it");
    let message = message
        .and_then(|message| message.map_err(anyhow::Error::msg))
        .with_context(|| format!("cannot use `{}`", args.message.display()))?;
    state::make(&config.state)?;
    let components = ComponentRunner::new()?;
    let catalog = Catalog::load(Listing::read(config), &components);
    let task = find(&catalog, &args.task)?.name.clone();
    let playbooks = Playbooks::open(config, "tries")
        .map_err(|error| format!("{:#}", anyhow::Error::new(error)));
    let runner = Runner { components, playbooks, catalog };
    let attempt = block_on(run_once(&runner, &task, &message))?;
    print_plain(&attempt.output.text)?;
    if attempt.output.dropped > 0 {
        print(&format!("… {} bytes more\n", attempt.output.dropped))?;
    }
    for (key, value) in &attempt.notes {
        print_plain(&format!("note: {key} = {value}\n"))?;
    }
    print(&format!("{task} on message {}: {}\n", message.id, attempt.outcome))?;
    Ok(if attempt.outcome.is_success() { DONE } else { FAILED })
}

async fn run_once(runner: &Runner, task: &TaskName, message: &Message) -> Attempt {
    let id = RunId::new(format!("test-{}", uuid::Uuid::new_v4().simple()));
    runner.run(task, message, &id, 1, &CancellationToken::new()).await
}

fn find<'a>(catalog: &'a Catalog, wanted: &str) -> Result<&'a Task, Failure> {
    let routes = &catalog.routes;
    let by_name = TaskName::try_from(wanted).ok().and_then(|name| routes.task(&name));
    if let Some(task) = by_name {
        return Ok(task);
    }
    let tasks = wanted.try_into().map(|topic| routes.resolve(&topic)).unwrap_or_default();
    let names: Vec<&str> = tasks.iter().map(|task| task.name.as_str()).collect();
    match tasks.as_slice() {
        [task] => Ok(routes.task(&task.name).expect("a task that was resolved is in the table")),
        [] => {
            let error = anyhow!("there is no task `{wanted}`, and no task wants such a topic");
            Err(Failure::with_hint(error, "`loopabull-host check` lists the tasks"))
        }
        _ => {
            let error = anyhow!("several tasks want the topic `{wanted}`");
            Err(Failure::with_hint(error, format!("name one: {}", names.join(", "))))
        }
    }
}
