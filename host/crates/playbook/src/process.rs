//! Starts, watches and stops a program through the launcher.
//!
//! A [`Process`] has one launcher process. The launcher kills all processes that its program leaves behind,
//! and kills the program if the daemon dies. A run has therefore ended when the launcher has ended.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::process::Stdio;

use loopabull_launcher::send_plan;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::error::{LostError, StartError};
use crate::plan::LaunchPlan;
use crate::watch::{End, EndRequest, Limits, Pipes, READ_TIMEOUT, Running, watch};

/// The maximum size of the launcher's reports, in bytes.
const MAX_REPORTS: usize = 1 << 20;

/// A program that was started through the launcher.
#[derive(Debug)]
pub(crate) struct Process {
    launcher: Launcher,
    pipes: Pipes,
}

/// A launcher process that was started.
#[derive(Debug)]
struct Launcher {
    child: Child,
    /// The control socket, on which the launcher sends its reports. Dropping the socket ends the launcher.
    control: UnixStream,
    reports: Vec<u8>,
}

impl Process {
    /// Starts a program through the launcher. If the plan names a file descriptor to pass on, the program
    /// gets a pipe for its results under that number.
    pub(crate) fn start(launcher: &Path, plan: &LaunchPlan) -> Result<Self, StartError> {
        let (pipes, ends) = Pipes::make()
            .map_err(|source| StartError::Launch { path: launcher.to_owned(), source })?;
        let has_results = !plan.confinement.descriptors.is_empty();
        let results = has_results.then(|| ends.results.as_fd());
        let output = [ends.stdout.into(), ends.stderr.into()];
        let (child, control) = launch(launcher, plan, results.as_slice(), output)?;
        Ok(Self { launcher: Launcher { child, control, reports: Vec::new() }, pipes })
    }

    /// Watches the program until all of its processes have ended.
    pub(crate) async fn watch(self, limits: Limits<'_>, cancel: &CancellationToken) -> End {
        let Self { mut launcher, pipes } = self;
        let end = watch(&mut launcher, pipes, limits, cancel).await;
        let reports = String::from_utf8_lossy(&launcher.reports);
        let reports = reports.lines().filter_map(|line| line.parse().ok()).collect();
        End { reports, ..end }
    }
}

impl Running for Launcher {
    async fn wait(&mut self) -> Result<(), LostError> {
        let Self { child, control, reports } = self;
        let read = read_reports(control, reports);
        tokio::pin!(read);
        let status = tokio::select! {
            status = child.wait() => {
                drop(tokio::time::timeout(READ_TIMEOUT, read).await);
                status
            }
            () = &mut read => child.wait().await,
        };
        status.map(drop).map_err(LostError::Launcher)
    }

    /// Sends SIGTERM to the launcher. On the first SIGTERM the launcher stops the program. On the second
    /// SIGTERM it kills all processes of the program.
    fn ask(&mut self, _: EndRequest) -> Result<(), LostError> {
        let pid = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(Err(error)) = pid.map(|pid| kill_process(pid, Signal::TERM)) {
            tracing::trace!("cannot send SIGTERM to the launcher: {error}");
        }
        Ok(())
    }

    async fn abandon(&mut self) -> Result<(), LostError> {
        self.child.kill().await.map_err(LostError::Launcher)
    }
}

/// Starts the launcher and sends the plan to it. The launcher sends its reports on the returned socket.
/// Dropping the socket ends the launcher and its program.
pub(crate) fn launch(
    launcher: &Path,
    plan: &LaunchPlan,
    descriptors: &[BorrowedFd<'_>],
    [stdout, stderr]: [Stdio; 2],
) -> Result<(Child, UnixStream), StartError> {
    let cannot = |source| StartError::Launch { path: launcher.to_owned(), source };
    let (ours, theirs) = StdStream::pair().map_err(cannot)?;
    #[expect(clippy::disallowed_methods, reason = "the one place that starts a process")]
    let child = Command::new(launcher)
        .args(["--control", "0"])
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(stdout)
        .stderr(stderr)
        .kill_on_drop(true)
        .spawn()
        .map_err(cannot)?;
    send_plan(&ours, &plan.confinement, &plan.environment, descriptors).map_err(cannot)?;
    ours.set_nonblocking(true).map_err(cannot)?;
    Ok((child, UnixStream::from_std(ours).map_err(cannot)?))
}

/// Reads the reports of the launcher until the socket closes. If the future is dropped, `reports` keeps the
/// bytes that were read.
async fn read_reports(control: &mut UnixStream, reports: &mut Vec<u8>) {
    let mut buffer = vec![0; 1 << 10];
    while let Ok(count @ 1..) = control.read(&mut buffer).await {
        if reports.len() < MAX_REPORTS {
            reports.extend_from_slice(&buffer[..count]);
        }
    }
}
