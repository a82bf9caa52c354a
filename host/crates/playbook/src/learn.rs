//! Finds out which files and ports a playbook uses, in one run without the limits on them.

use std::path::{Path, PathBuf};

use loopabull_launcher::{FileAccess, Report};
use loopabull_model::Attempt;
use tokio_util::sync::CancellationToken;

use crate::configure::configure;
use crate::error::CheckError;
use crate::host::Host;
use crate::report::record;
use crate::run::{Call, input, variables_of};

/// The directories for temporary files.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

/// The ports and files that a playbook used and that its manifest does not grant.
#[derive(Debug)]
pub struct Learned {
    pub attempt: Attempt,
    /// TCP ports to which the playbook tried to connect, without those that are granted.
    pub ports: Vec<u16>,
    /// Files that the playbook read.
    pub read: Vec<PathBuf>,
    /// Files that were there and that the playbook wrote.
    pub written: Vec<PathBuf>,
    /// Files that the playbook created, removed or replaced.
    pub created: Vec<PathBuf>,
    /// The reason why the playbook may have used more than is named.
    pub unwatched: Option<String>,
}

/// Runs a playbook once without the layers for files and ports, and without changes by Ansible's modules if the task
/// has check mode.
pub(crate) async fn learn(
    host: &Host,
    call: &Call<'_>,
    cancel: &CancellationToken,
) -> Result<Learned, CheckError> {
    let play = configure(host, call.task, call.dir).await?;
    let variables =
        variables_of(call).map_err(|error| CheckError::Message { reason: error.to_string() })?;
    let limits = call.limits();
    let folder = host.make_folder(call.run_id.as_str())?;
    let plan = input(host, call, &play, &variables, &folder)
        .and_then(|arguments| host.planner.playbook(&play, folder.path(), arguments));
    let plan = plan.map(|plan| host.planner.learning(plan));
    let end = host.run(folder, plan, limits, cancel).await?;
    let (mut ports, mut unwatched) = (Vec::new(), None);
    let (mut read, mut written, mut created) = (Vec::new(), Vec::new(), Vec::new());
    // A confined run has no access to the keys and the configuration of the real home.
    let ssh = host.planner.real_home(".ssh");
    let tcp = &call.task.manifest.grants.tcp;
    for report in &end.reports {
        match report {
            Report::Denied { port } if !tcp.contains(port) && *port != crate::plan::SSH => {
                ports.push(*port)
            }
            Report::Used { access, path } if is_left(path) && !path.starts_with(&ssh) => {
                match access {
                    FileAccess::Read => read.push(path.clone()),
                    FileAccess::Write => written.push(path.clone()),
                    FileAccess::Create => created.push(path.clone()),
                }
            }
            Report::Unwatched { reason } => unwatched = Some(reason.clone()),
            _ => (),
        }
    }
    ports.sort_unstable();
    let attempt = record(end, limits.timeout, &call.secrets);
    Ok(Learned { attempt, ports, read, written, created, unwatched })
}

/// Returns whether a file can need a grant: its directory is there after the run, and is no temporary directory, since
/// a run has its own.
fn is_left(path: &Path) -> bool {
    let is_temporary = TEMPORARY.iter().any(|temporary| path.starts_with(temporary));
    !is_temporary && path.parent().is_some_and(Path::is_dir)
}
