//! The command `test` runs a task once on one message.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use clap::Args;
use loopabull_model::{Attempt, Message, PlaybookReport, RunId, Task, TaskKind, TaskName, chain};
use loopabull_playbook::Playbooks;
use loopabull_wasm::{ComponentRunner, ReadState};
use tokio_util::sync::CancellationToken;

use crate::commands::failure::{DONE, FAILED, Failure};
use crate::commands::recordings::{self, read};
use crate::commands::{block_on, print, print_plain};
use crate::config::Config;
use crate::daemon::state_dir;
use crate::journal::Journal;
use crate::tables;
use crate::tasks::case::Case;
use crate::tasks::catalog::Catalog;
use crate::tasks::discovery::Discovery;
use crate::work::runner::{Call, Runner};

/// Run a task once on a recorded message, without a bus or a queue
///
/// Prints the task's grants, output, resource usage and outcome. The task's HTTP requests are sent. Its
/// messages and state changes are only printed, not published or stored. The task reads its stored
/// state from the state directory. The exit status is 0 only if the task succeeded.
///
/// Example: `loopabull-host test flag-build message.json`
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Name of the task, or a topic that exactly one task subscribes to
    #[arg(value_name = "TASK-OR-TOPIC", required_unless_present = "run")]
    task: Option<String>,
    /// File with one message, or `-` for standard input
    #[arg(value_name = "MESSAGE.json", required_unless_present = "run")]
    message: Option<PathBuf>,
    /// Take the task and the message from this run in the journal
    #[arg(long, value_name = "ID", conflicts_with_all = ["task", "message"])]
    run: Option<String>,
    /// Record the message and the outcome as a test case of the task's crate
    ///
    /// The default for FILE is `tests/cases/MESSAGE-ID.json` in the task's crate. The crate is the
    /// folder with the task's name in the directory of components.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    record: Option<Option<PathBuf>>,
}

pub(crate) fn run(config: &Config, args: &TestArgs) -> Result<u8, Failure> {
    state_dir::make(&config.state)?;
    state_dir::restrict(config)?;
    let journal = match tables::path(&config.state).exists() {
        true => Some(Arc::new(Journal::open_to_read(&config.state)?)),
        false => None,
    };
    let components = Arc::new(ComponentRunner::new(&config.components(1)?)?);
    let catalog = Catalog::load(config, &Discovery::read(config, None), &components, None);
    let (task, message) = match (&args.run, &args.task, &args.message) {
        (Some(run), ..) => from_run(&catalog, journal.as_deref(), run)?,
        (None, Some(task), Some(message)) => (find(&catalog, task)?, message_in(message)?),
        _ => unreachable!("clap requires a task and a message, or a run"),
    };
    if let Some(reason) = catalog.refused(&task.name) {
        return Err(anyhow!("task `{}` is refused: {reason}", task.name).into());
    }
    let playbooks = Playbooks::open(&config.playbook_settings("tries")).map_err(chain);
    let runner = Runner::new(config, components, playbooks, catalog);
    for line in task.manifest.grants.lines() {
        print_plain(&format!("granted: {line}\n"))?;
    }
    let start = Instant::now();
    let attempt = block_on(run_once(&runner, &task.name, &message, journal.as_ref()))?;
    show(&task, &attempt, start.elapsed())?;
    print(&format!("{} on message {}: {}\n", task.name, message.id, attempt.outcome))?;
    if let Some(file) = &args.record {
        let file = match file {
            Some(file) => file.clone(),
            None => case_file(config, &task.name, &message)?,
        };
        Case::new(&message, 1, &task.manifest, &attempt)?.write(&file)?;
        print(&format!("recorded as `{}`\n", file.display()))?;
    }
    Ok(if attempt.outcome.is_success() { DONE } else { FAILED })
}

async fn run_once(
    runner: &Runner,
    task: &TaskName,
    message: &Message,
    journal: Option<&Arc<Journal>>,
) -> Attempt {
    let id = RunId::new(format!("test-{}", uuid::Uuid::new_v4().simple()));
    let nothing: ReadState = Arc::new(|_| Box::pin(async { Ok(None) }));
    let state = journal.map_or(nothing, |journal| journal.state_of(task));
    let call = Call { task, message, run_id: &id, attempt: 1, state };
    runner.run(&runner.catalog.get(), call, &CancellationToken::new()).await
}

fn show(task: &Task, attempt: &Attempt, took: Duration) -> Result<(), Failure> {
    print_plain(&attempt.output.text)?;
    if attempt.output.dropped > 0 {
        print(&format!("… {} more bytes of output\n", attempt.output.dropped))?;
    }
    for (key, value) in &attempt.notes {
        print_plain(&format!("note: {key} = {value}\n"))?;
    }
    for denial in attempt.playbook.iter().flat_map(PlaybookReport::denials) {
        print(&format!("denied: {denial}\n"))?;
    }
    for request in &attempt.usage.requests {
        print_plain(&format!("called: {request}\n"))?;
    }
    for emission in &attempt.effects.emitted {
        print_plain(&format!("would publish: {} {}\n", emission.topic, emission.body.as_str()))?;
    }
    for (key, value) in &attempt.effects.state.written {
        let change = match value {
            Some(value) => format!("would store: {key} = {}\n", String::from_utf8_lossy(value)),
            None => format!("would delete: {key}\n"),
        };
        print_plain(&change)?;
    }
    if task.kind == TaskKind::Component {
        let allowed = humantime::format_duration(task.timeout());
        let [used, limit] = [attempt.usage.memory, task.memory()].map(bytesize::ByteSize);
        let calls = attempt.usage.host_calls;
        // The duration is printed without nanoseconds.
        let took = humantime::format_duration(Duration::from_micros(
            u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        ));
        print(&format!("used: {took} of {allowed}, {used} of {limit}, {calls} host calls\n"))?;
    }
    Ok(())
}

fn message_in(file: &Path) -> Result<Message, Failure> {
    let text = read(file)?;
    let message = recordings::messages(&text).next().context("the file contains no JSON document");
    let message = message
        .and_then(|message| message.map_err(anyhow::Error::msg))
        .with_context(|| format!("cannot use `{}`", file.display()))?;
    Ok(message)
}

/// Returns the task and the message of a run in the journal.
fn from_run(
    catalog: &Catalog,
    journal: Option<&Journal>,
    id: &str,
) -> Result<(Task, Message), Failure> {
    let journal = journal.context("the state directory contains no journal")?;
    let found = block_on(async {
        let run = journal.find(RunId::new(id)).await?;
        Ok::<_, loopabull_store::StoreError>((run, journal.message(RunId::new(id)).await?))
    })??;
    let (Some(run), message) = found else {
        let error = anyhow!("the journal contains no run `{id}`");
        return Err(Failure::with_hint(error, "list recent runs with `loopabull-host runs list`"));
    };
    let message = message.with_context(|| format!("the message of run `{id}` was not stored"))?;
    Ok((find(catalog, run.task.as_str())?, message))
}

/// Returns the default path for a test case in the task's crate.
fn case_file(config: &Config, task: &TaskName, message: &Message) -> Result<PathBuf, Failure> {
    let folder = config.tasks.join(task.as_str());
    if !folder.join("Cargo.toml").is_file() {
        let error = anyhow!("the crate `{}` of the task does not exist", folder.display());
        return Err(Failure::with_hint(
            error,
            "name the file, for example `--record=tests/cases/NAME.json`",
        ));
    }
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let name: String = message.id.as_str().chars().map(plain).collect();
    Ok(folder.join("tests/cases").join(format!("{name}.json")))
}

fn find(catalog: &Catalog, wanted: &str) -> Result<Task, Failure> {
    let routes = &catalog.routes;
    let by_name = TaskName::try_from(wanted).ok().and_then(|name| routes.task(&name));
    if let Some(task) = by_name {
        return Ok((**task).clone());
    }
    let tasks = wanted.try_into().map(|topic| routes.resolve(&topic)).unwrap_or_default();
    let names: Vec<&str> = tasks.iter().map(|task| task.name.as_str()).collect();
    match tasks.as_slice() {
        [task] => Ok((**task).clone()),
        [] => {
            let error = anyhow!("no task has the name or the topic `{wanted}`");
            Err(Failure::with_hint(error, "list the tasks with `loopabull-host tasks`"))
        }
        _ => {
            let error = anyhow!("several tasks subscribe to topic `{wanted}`");
            Err(Failure::with_hint(
                error,
                format!("use the name of one of them: {}", names.join(", ")),
            ))
        }
    }
}
