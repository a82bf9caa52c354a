//! Checks before any message: whether Ansible can read a playbook, and which layers this machine holds.

use std::time::Duration;

use loopabull_model::{Attempt, LayerReport, Outcome, Task};
use tokio_util::sync::CancellationToken;

use crate::error::{CheckError, StartError};
use crate::folder::Folder;
use crate::host::Host;
use crate::plan::LaunchPlan;
use crate::report::record;
use crate::secrets::Secrets;
use crate::watch::Limits;

/// How much of the output is kept about a playbook that Ansible cannot read, in bytes.
const CHECK_OUTPUT: u64 = 16 << 10;
/// How long the program that tries the layers may take.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Lets Ansible read a playbook without running it.
pub(crate) async fn check(
    host: &Host,
    task: &Task,
    secrets: &Secrets,
    timeout: Duration,
) -> Result<(), CheckError> {
    let name = format!("check-{}-{}", std::process::id(), task.name);
    let limits = Limits { timeout, output: CHECK_OUTPUT, mask: secrets.mask() };
    let plan = |folder: &Folder| {
        folder.write_secrets(secrets)?;
        let arguments = host.planner.arguments(task, folder.path(), ["--syntax-check".into()])?;
        host.planner.playbook(task, folder.path(), arguments)
    };
    let attempt = run(host, &name, plan, limits, secrets).await?;
    match attempt.outcome {
        Outcome::Success => Ok(()),
        outcome => Err(CheckError::Playbook { outcome, output: attempt.output.text }),
    }
}

/// Tries the confinement of playbooks on a program that does nothing.
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

/// Runs a plan in a folder of its own, and removes the folder.
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
