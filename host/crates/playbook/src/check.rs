//! Checks that need no message: the syntax of a playbook, and the confinement layers of this machine.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use loopabull_model::{Attempt, LayerReport, Outcome, Task, VariableName};
use tokio_util::sync::CancellationToken;

use crate::ansible_settings::AnsibleSettings;
use crate::error::{CheckError, StartError};
use crate::folder::Folder;
use crate::host::Host;
use crate::plan::LaunchPlan;
use crate::playbook_dir::PlaybookDir;
use crate::report::record;
use crate::secrets::Secrets;
use crate::watch::Limits;

/// The maximum size of the stored output of a check, in bytes.
const CHECK_OUTPUT: u64 = 16 << 10;
/// The timeout for reading Ansible's settings.
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(30);
/// The timeout of the program with which the layers are tried.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Checks the syntax of a playbook with `ansible-playbook --syntax-check`.
pub(crate) async fn check(
    host: &Host,
    task: &Task,
    dir: &PlaybookDir,
    secrets: &Secrets,
    timeout: Duration,
) -> Result<(), CheckError> {
    read_settings(host, task, dir).await?;
    let limits = Limits { timeout, output: CHECK_OUTPUT, mask: secrets.mask() };
    let plan = |folder: &Folder| {
        folder.write_input(task, secrets)?;
        let arguments =
            host.planner.arguments(task, dir, folder.path(), ["--syntax-check".into()])?;
        host.planner.playbook(task, dir, folder.path(), arguments)
    };
    output(run(host, &folder_name(task), plan, limits, secrets).await?).map(drop)
}

/// Asks Ansible for the settings of a playbook's configuration, unless they are known.
pub(crate) async fn read_settings(
    host: &Host,
    task: &Task,
    dir: &PlaybookDir,
) -> Result<(), CheckError> {
    let Some(key) = host.planner.unknown_configuration(task, dir)? else { return Ok(()) };
    let secrets = Secrets::default();
    let limits = Limits { timeout: SETTINGS_TIMEOUT, output: CHECK_OUTPUT, mask: secrets.mask() };
    let plan = |folder: &Folder| host.planner.settings_query(task, dir, folder.path());
    let text = output(run(host, &folder_name(task), plan, limits, &secrets).await?)?;
    let settings =
        AnsibleSettings::parse(&text).map_err(|source| CheckError::Settings { source })?;
    host.planner.store_settings(key, settings);
    Ok(())
}

/// Returns the variables that a playbook uses and does not define, and that may be keys of a message.
pub(crate) async fn undefined_names(
    host: &Host,
    task: &Task,
    dir: &PlaybookDir,
    timeout: Duration,
) -> Result<Vec<VariableName>, CheckError> {
    let secrets = Secrets::default();
    let limits = Limits { timeout, output: CHECK_OUTPUT, mask: secrets.mask() };
    let plan = |folder: &Folder| host.planner.undefined_names(task, dir, folder.path());
    let text = output(run(host, &folder_name(task), plan, limits, &secrets).await?)?;
    Ok(text.lines().filter_map(|name| VariableName::new(name).ok()).collect())
}

/// Returns the output of a check that succeeded.
fn output(attempt: Attempt) -> Result<String, CheckError> {
    match attempt.outcome {
        Outcome::Success => Ok(attempt.output.text),
        outcome => Err(CheckError::Playbook { outcome, output: attempt.output.text }),
    }
}

/// Returns the name of the folder of a new check.
fn folder_name(task: &Task) -> String {
    // A reload may check the next version of a playbook while this one is still being checked.
    static CHECKS: AtomicU64 = AtomicU64::new(0);
    let number = CHECKS.fetch_add(1, Ordering::Relaxed);
    format!("check-{}-{number}-{}", std::process::id(), task.name)
}

/// Runs `/bin/true` in the sandbox of playbooks, and returns the state of each layer.
pub(crate) async fn try_layers(host: &Host) -> Result<Vec<LayerReport>, CheckError> {
    let name = format!("layers-{}", std::process::id());
    let secrets = Secrets::default();
    let limits = Limits { timeout: TRIAL_TIMEOUT, output: CHECK_OUTPUT, mask: secrets.mask() };
    let plan = |folder: &Folder| Ok(host.planner.trial(folder.path()));
    let attempt = run(host, &name, plan, limits, &secrets).await?;
    match attempt.outcome {
        Outcome::Success => Ok(attempt.playbook.unwrap_or_default().layers),
        outcome => Err(CheckError::Layers { outcome }),
    }
}

/// Creates a folder, runs the plan made for it, and removes the folder.
async fn run(
    host: &Host,
    name: &str,
    plan: impl FnOnce(&Folder) -> Result<LaunchPlan, StartError>,
    limits: Limits<'_>,
    secrets: &Secrets,
) -> Result<Attempt, StartError> {
    let folder = host.make_folder(name)?;
    let started = plan(&folder).and_then(|plan| host.start(&plan));
    let end = match started {
        Ok(process) => Ok(process.watch(limits, &CancellationToken::new()).await),
        Err(error) => Err(error),
    };
    folder.remove().await;
    Ok(record(end?, limits.timeout, secrets))
}
