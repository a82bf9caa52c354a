//! Checks that need no message: the syntax of a playbook, and the confinement layers of this machine.

use std::time::Duration;

use loopabull_model::{LayerReport, Outcome, Task, VariableName};

use crate::configure::configure;
use crate::error::CheckError;
use crate::folder::Folder;
use crate::host::Host;
use crate::plan::Purpose;
use crate::playbook_dir::PlaybookDir;
use crate::secrets::Secrets;
use crate::trial::{CHECK_OUTPUT, folder_name, output, trial};
use crate::watch::Limits;

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
    let play = configure(host, task, dir).await?;
    let limits = Limits { timeout, output: CHECK_OUTPUT, mask: secrets.mask() };
    let plan = |folder: &Folder| {
        folder.write_input(task, secrets)?;
        let check = ["--syntax-check".into()];
        let arguments = host.planner.arguments(&play, folder.path(), Purpose::Check, check)?;
        host.planner.playbook(&play, folder.path(), arguments)
    };
    let checked = output(trial(host, &folder_name(task), plan, limits, secrets).await?);
    checked.map(drop).map_err(|error| host.planner.explain(&play, error))
}

/// Returns the variables that a playbook uses and does not define, and that may be keys of a message.
pub(crate) async fn undefined_names(
    host: &Host,
    task: &Task,
    dir: &PlaybookDir,
    timeout: Duration,
) -> Result<Vec<VariableName>, CheckError> {
    let play = configure(host, task, dir).await?;
    let secrets = Secrets::default();
    let limits = Limits { timeout, output: CHECK_OUTPUT, mask: secrets.mask() };
    let plan = |folder: &Folder| host.planner.undefined_names(&play, folder.path());
    let text = output(trial(host, &folder_name(task), plan, limits, &secrets).await?)?;
    Ok(text.lines().filter_map(|name| VariableName::new(name).ok()).collect())
}

/// Runs `/bin/true` in the sandbox of playbooks, and returns the state of each layer.
pub(crate) async fn try_layers(host: &Host) -> Result<Vec<LayerReport>, CheckError> {
    let name = format!("layers-{}", std::process::id());
    let secrets = Secrets::default();
    let limits = Limits { timeout: TRIAL_TIMEOUT, output: CHECK_OUTPUT, mask: secrets.mask() };
    let plan = |folder: &Folder| Ok(host.planner.trial(folder.path()));
    let attempt = trial(host, &name, plan, limits, &secrets).await?;
    match attempt.outcome {
        Outcome::Success => Ok(attempt.playbook.unwrap_or_default().layers),
        outcome => Err(CheckError::Layers { outcome }),
    }
}
