//! Runs a program in the sandbox of playbooks without a message.

use std::sync::atomic::{AtomicU64, Ordering};

use loopabull_model::{Attempt, Outcome, Task};
use tokio_util::sync::CancellationToken;

use crate::error::{CheckError, StartError};
use crate::folder::Folder;
use crate::host::Host;
use crate::plan::LaunchPlan;
use crate::report::record;
use crate::secrets::Secrets;
use crate::watch::Limits;

/// The maximum size of the stored output of a check, in bytes.
pub(crate) const CHECK_OUTPUT: u64 = 16 << 10;

/// Returns the output of a check that succeeded.
pub(crate) fn output(attempt: Attempt) -> Result<String, CheckError> {
    match attempt.outcome {
        Outcome::Success => Ok(attempt.output.text),
        outcome => Err(CheckError::Playbook { outcome, output: attempt.output.text }),
    }
}

/// Returns the name of the folder of a new check.
pub(crate) fn folder_name(task: &Task) -> String {
    // A reload may check the next version of a playbook while this one is still being checked.
    static CHECKS: AtomicU64 = AtomicU64::new(0);
    let number = CHECKS.fetch_add(1, Ordering::Relaxed);
    format!("check-{}-{number}-{}", std::process::id(), task.name)
}

/// Creates a folder, runs the plan made for it, and removes the folder.
pub(crate) async fn trial(
    host: &Host,
    name: &str,
    plan: impl FnOnce(&Folder) -> Result<LaunchPlan, StartError>,
    limits: Limits<'_>,
    secrets: &Secrets,
) -> Result<Attempt, StartError> {
    let folder = host.make_folder(name)?;
    let plan = plan(&folder);
    let end = host.run(folder, plan, limits, &CancellationToken::new()).await?;
    Ok(record(end, limits.timeout, secrets))
}
