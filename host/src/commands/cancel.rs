//! The command `runs cancel` cancels a run in progress.

use anyhow::anyhow;
use clap::Args;
use hyper::StatusCode;
use loopabull_model::RunId;

use crate::api::{CancelRequest, Done};
use crate::commands::client::{ClientError, Remote};
use crate::commands::failure::{DONE, Failure};
use crate::commands::print_plain;
use crate::config::Config;

const NO_RUN: &str = "list the runs in progress with `loopabull-host status`";

/// Cancel a run in progress
///
/// A playbook gets SIGTERM; after 5 s, it and everything that it started are killed. A component ends at once. The message
/// becomes a dead letter, and is not tried again until it is requeued with `loopabull-host dead-letters requeue`. The outcome of the run is `aborted`.
///
/// Example: `loopabull-host status` shows the id of each run in progress; then `loopabull-host runs cancel ID`
#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    /// Id of the run, from `status`
    id: String,
}

pub(super) fn run(config: &Config, remote: &Remote, args: &CancelArgs) -> Result<u8, Failure> {
    let Some(daemon) = remote.wait_for(config)? else {
        return Err(anyhow!("no daemon is running, so no run is in progress").into());
    };
    let done = daemon.post("runs/cancel", &CancelRequest { run: RunId::new(&args.id) });
    let Done { said, .. } = done.map_err(|error: ClientError| match error.status() {
        Some(StatusCode::NOT_FOUND) => Failure::with_hint(error, NO_RUN),
        _ => error.into_failure(),
    })?;
    print_plain(&(said + "\n"))?;
    Ok(DONE)
}
