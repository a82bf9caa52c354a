//! The command `check` checks the configuration, the tasks and the queue without starting the daemon.

use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use loopabull_fedora_messaging::Exchange;
use loopabull_model::{LayerReport, Task, TaskKind, chain};
use loopabull_playbook::Playbooks;
use loopabull_wasm::ComponentRunner;

use crate::commands::failure::{DONE, FAILED, Failure};
use crate::commands::learn;
use crate::commands::table::Table;
use crate::commands::{block_on, print, print_plain, queues};
use crate::config::Config;
use crate::daemon::state_dir;
use crate::tasks::catalog::Catalog;
use crate::tasks::discovery::{Discovery, Severity};
use crate::tasks::playbook::LoadedPlaybook;
use crate::work::ack_timeout;

/// The timeout for the search for undefined variables in one playbook.
const NAMES_TIMEOUT: Duration = Duration::from_secs(30);

/// Check the configuration, the tasks and the queue
///
/// Compiles the components, checks the playbooks with Ansible, opens the queue, and prints the topics,
/// limits and grants of each task. The exit status is 0 only if there is no problem.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Run this playbook once on a message, NOT confined, and print the grants that it needs
    ///
    /// Ansible runs in check mode, but tasks with `check_mode: false`, lookups and plugins act for
    /// real, with the secrets of the task and on every file and host that its user may reach. Files
    /// that are only looked at and not opened are not noticed. Not as root: set `user`.
    #[arg(long, num_args = 2, value_names = ["TASK", "MESSAGE.json"])]
    learn: Vec<String>,
}

pub(crate) fn run(config: &Config, args: &CheckArgs) -> Result<u8, Failure> {
    config.validate()?;
    match args.learn.as_slice() {
        [] => (),
        [task, file] => return learn::run(config, task, Path::new(file)),
        _ => {
            return Err(Failure::with_hint(
                anyhow!("`--learn` takes one playbook"),
                "give it once",
            ));
        }
    }
    state_dir::make(&config.state)?;
    let components = ComponentRunner::new(&config.components(1)?)?;
    let catalog = Catalog::load(config, &Discovery::read(config, None), &components, None);
    let mut problems = Vec::new();
    let mut notes = Vec::new();
    for finding in catalog.all_findings() {
        let line = format!("`{}`: {}", finding.file.display(), finding.text);
        match finding.severity {
            Severity::Note => notes.push(line),
            Severity::Problem => problems.push(line),
        }
    }
    let mut table =
        Table::new(&["TASK", "KIND", "TOPICS", "QUEUE", "TIMEOUT", "MEMORY", "ATTEMPTS", "GRANTS"]);
    let tasks = catalog.routes.tasks().into_iter();
    let accepted: Vec<_> = tasks.filter(|task| catalog.refused(&task.name).is_none()).collect();
    for task in &accepted {
        table.push(row(task));
    }
    print(&table.render())?;
    for task in accepted.iter().filter(|task| !task.manifest.grants.is_empty()) {
        print_plain(&format!("`{}` may\n", task.name))?;
        for line in task.manifest.grants.lines() {
            print_plain(&format!("  {line}\n"))?;
        }
    }
    block_on(async {
        if let Some(publish) = &config.publish
            && let Err(error) = Exchange::connect(&publish.amqp_url, &publish.exchange).await
        {
            problems.push(format!("`[publish]`: {}", chain(error)));
        }
        check_playbooks(config, &catalog, &mut problems, &mut notes).await?;
        let tasks = || catalog.routes.tasks().into_iter().map(AsRef::as_ref);
        match queues::open(config, &config.queues(tasks())).await {
            Ok(queues) => {
                for task in
                    ack_timeout::too_long(&config.staffed_queues(tasks()), &queues, tasks()).await
                {
                    problems.push(format!("{task}\nhint: {}", task.hint()));
                }
            }
            Err(error) => problems.push(chain(error)),
        }
        Ok::<_, Failure>(())
    })??;
    for note in &notes {
        print(&format!("note: {note}\n"))?;
    }
    for problem in &problems {
        print(&format!("problem: {problem}\n"))?;
    }
    if problems.is_empty() {
        print("no problems found\n")?;
    }
    Ok(if problems.is_empty() { DONE } else { FAILED })
}

/// Prints the sandbox layers that this machine supports for playbooks, and checks the playbooks
/// with Ansible.
async fn check_playbooks(
    config: &Config,
    catalog: &Catalog,
    problems: &mut Vec<String>,
    notes: &mut Vec<String>,
) -> Result<(), Failure> {
    let tasks = catalog.routes.tasks();
    if !tasks.iter().any(|task| task.kind == TaskKind::Playbook) {
        return Ok(());
    }
    let playbooks = match Playbooks::open(&config.playbook_settings("tries")) {
        Ok(playbooks) => playbooks,
        Err(error) => {
            let hint = error.hint();
            problems.push(format!("{}\nhint: {hint}", chain(error)));
            return Ok(());
        }
    };
    match playbooks.try_layers().await {
        Ok(layers) => {
            let mut table = Table::new(&["LAYER", "PLAYBOOKS", "DETAIL"]);
            for LayerReport { layer, state, detail } in layers {
                table.push(vec![layer, state.as_str().to_owned(), detail.as_str().to_owned()]);
            }
            print(&table.render())?;
        }
        Err(error) => problems.push(format!("cannot sandbox playbooks: {}", chain(error))),
    }
    for (task, playbook) in catalog.playbooks() {
        if let Err(error) = playbook.check(task, &playbooks).await {
            problems.push(format!("`{}.yml`: cannot be checked now: {}", task.name, chain(error)));
        }
        match playbook.failure() {
            Some(reason) => problems.push(format!("`{}.yml`: {reason}", task.name)),
            None => notes.extend(undefined_names(&playbooks, task, playbook).await),
        }
        if playbook.dir.becomes_here(task) {
            let file = format!("{}.yml", task.name);
            notes.push(format!(
                "`{file}`: `become` has no effect on localhost, because the sandbox forbids new \
                 privileges; on remote hosts it works"
            ));
        }
    }
    Ok(())
}

/// Returns a note on the variables that a playbook uses and does not define: in playbooks of the first
/// loopabull, they are keys of the message.
async fn undefined_names(
    playbooks: &Playbooks,
    task: &Task,
    playbook: &LoadedPlaybook,
) -> Option<String> {
    // A program instead of Ansible cannot be asked, and a note is not worth an error.
    let names = playbooks.undefined_names(task, &playbook.dir, NAMES_TIMEOUT).await.ok()?;
    let known = task.manifest.ansible.variables.names();
    let unknown: Vec<_> = names.iter().filter(|name| !known.contains(name)).collect();
    if unknown.is_empty() {
        return None;
    }
    let all = known.iter().chain(unknown.iter().copied()).map(|name| format!("\"{name}\""));
    let unknown: Vec<_> = unknown.iter().map(|name| format!("`{name}`")).collect();
    Some(format!(
        "`{}.yml`: uses {}, which the playbook does not define; if the keys of the message are meant, write \
         `variables = [{}]` under `[ansible]` in its manifest",
        task.name,
        unknown.join(", "),
        all.collect::<Vec<_>>().join(", "),
    ))
}

fn row(task: &Task) -> Vec<String> {
    let manifest = &task.manifest;
    let topics: Vec<String> = task.patterns().iter().map(ToString::to_string).collect();
    let memory = match (manifest.limits.memory, task.kind) {
        (Some(memory), _) => memory.to_string(),
        (None, TaskKind::Component) => bytesize::ByteSize(task.memory()).to_string(),
        (None, TaskKind::Playbook) => bytesize::ByteSize(loopabull_playbook::MEMORY).to_string(),
    };
    let grants = match manifest.grants.is_empty() {
        true => "none".to_owned(),
        false => manifest.grants.kinds().join(", "),
    };
    vec![
        task.name.to_string(),
        task.kind.to_string(),
        topics.join(" "),
        manifest.queue.to_string(),
        humantime::format_duration(task.timeout()).to_string(),
        memory,
        manifest.retry.max_attempts().to_string(),
        grants,
    ]
}
