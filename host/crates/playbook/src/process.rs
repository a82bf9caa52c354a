//! A program behind the launcher: started, watched, stopped.
//!
//! Owns the life of one process of ours. The launcher kills whatever the program leaves behind, and
//! ends by itself when we are gone; so what is waited for here is the launcher, and its descriptors
//! cannot be held open by what it watches over.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use loopabull_launcher::{Confinement, Environment, Report, send_plan};
use loopabull_model::{Capture, Mask, Output, Results};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::results::Reader;

/// How long a program may go on after SIGTERM, before it is killed with all that it started.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// How long the launcher may take to kill everything.
pub(crate) const LAST_GRACE: Duration = Duration::from_secs(10);
/// How long we read on after the launcher ended; nothing should hold its output open.
pub(crate) const LINGER: Duration = Duration::from_secs(1);
/// How much a report may be, in bytes.
const MAX_REPORT: usize = 64 << 10;

/// A program that was started.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    control: UnixStream,
    results: Option<Receiver>,
}

/// How long a process is watched, and how much of what it says is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch<'a> {
    pub(crate) timeout: Duration,
    /// In bytes.
    pub(crate) output: u64,
    /// What is hidden in the results.
    pub(crate) mask: &'a Mask,
}

/// How a process came to its end.
#[derive(Debug)]
pub(crate) enum Ended {
    ByItself,
    AtDeadline,
    Cancelled,
    Lost(std::io::Error),
}

/// All that is known of a process that has ended.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) ended: Ended,
    pub(crate) reports: Vec<Report>,
    pub(crate) results: Option<Results>,
    pub(crate) output: Output,
}

impl End {
    /// The end of a process of which nothing is known any more.
    pub(crate) fn lost(error: std::io::Error) -> Self {
        let ended = Ended::Lost(error);
        Self { ended, reports: Vec::new(), results: None, output: Output::default() }
    }
}

impl Process {
    /// Starts a program through the launcher, with a pipe for results if it is to have one.
    pub(crate) fn start(
        launcher: &Path,
        confinement: &Confinement,
        environment: &Environment,
        results: usize,
    ) -> anyhow::Result<Self> {
        let cannot = || format!("cannot start `{}`", launcher.display());
        let mut pipes = (None, None);
        if results > 0 {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC).with_context(cannot)?;
            pipes = (Some(Receiver::from_owned_fd(read).with_context(cannot)?), Some(write));
        }
        let handed: Vec<_> = pipes.1.iter().map(AsFd::as_fd).collect();
        let output = || Stdio::piped();
        let (child, control) = launch(launcher, confinement, environment, &handed, output)?;
        Ok(Self { child, control, results: pipes.0 })
    }

    /// Reads what it says and waits for the end, which it brings about if it does not come in time.
    pub(crate) async fn watch(mut self, limits: Watch<'_>, cancel: &CancellationToken) -> End {
        let capture = Mutex::new(Capture::new(limits.output));
        let streams = (self.child.stdout.take(), self.child.stderr.take());
        let mut said = Vec::new();
        let mut reader = Reader::new(limits.mask);
        let ended = {
            let read = async {
                tokio::join!(
                    drain(streams.0, &capture),
                    drain(streams.1, &capture),
                    hear(&mut self.control, &mut said),
                    reader.read(self.results.as_mut()),
                );
            };
            let end = wait(&mut self.child, limits.timeout, cancel);
            tokio::pin!(read, end);
            tokio::select! {
                ended = &mut end => {
                    drop(tokio::time::timeout(LINGER, read).await);
                    ended
                }
                // The output may end first, and the launcher take a moment more.
                () = &mut read => end.await,
            }
        };
        let output = capture.into_inner().unwrap_or_else(PoisonError::into_inner).to_output();
        let said = String::from_utf8_lossy(&said);
        let reports = said.lines().filter_map(|line| line.parse().ok()).collect();
        End { ended, reports, results: reader.into_results(), output }
    }
}

/// Starts the launcher and hands it its plan. The socket brings its report, and ends it when it is
/// dropped.
pub(crate) fn launch(
    launcher: &Path,
    confinement: &Confinement,
    environment: &Environment,
    descriptors: &[BorrowedFd<'_>],
    output: impl Fn() -> Stdio,
) -> anyhow::Result<(Child, UnixStream)> {
    let cannot = || format!("cannot start `{}`", launcher.display());
    let (ours, theirs) = StdStream::pair().with_context(cannot)?;
    #[expect(clippy::disallowed_methods, reason = "this is the one place, and the launcher")]
    let child = Command::new(launcher)
        .args(["--control", "0"])
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(output())
        .stderr(output())
        .kill_on_drop(true)
        .spawn()
        .with_context(cannot)?;
    send_plan(&ours, confinement, environment, descriptors).with_context(cannot)?;
    ours.set_nonblocking(true).with_context(cannot)?;
    Ok((child, UnixStream::from_std(ours).with_context(cannot)?))
}

async fn wait(child: &mut Child, timeout: Duration, cancel: &CancellationToken) -> Ended {
    let why = tokio::select! {
        status = child.wait() => return status.map_or_else(Ended::Lost, |_| Ended::ByItself),
        () = tokio::time::sleep(timeout) => Ended::AtDeadline,
        () = cancel.cancelled() => Ended::Cancelled,
    };
    // The first asks the program to end, the second has the launcher kill all that there is.
    for patience in [GRACE, LAST_GRACE] {
        ask_to_end(child);
        if tokio::time::timeout(patience, child.wait()).await.is_ok() {
            return why;
        }
    }
    match child.kill().await {
        Ok(()) => why,
        Err(error) => Ended::Lost(error),
    }
}

fn ask_to_end(child: &Child) {
    let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    if let Some(Err(error)) = pid.map(|pid| kill_process(pid, Signal::TERM)) {
        tracing::trace!("cannot signal the launcher: {error}");
    }
}

pub(crate) async fn drain(stream: Option<impl AsyncRead + Unpin>, capture: &Mutex<Capture>) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        capture.lock().unwrap_or_else(PoisonError::into_inner).push(&buffer[..count]);
    }
}

/// Reads what the launcher reports, to its end.
async fn hear(control: &mut UnixStream, said: &mut Vec<u8>) {
    let mut buffer = vec![0; 1 << 10];
    while let Ok(count @ 1..) = control.read(&mut buffer).await {
        if said.len() < MAX_REPORT {
            said.extend_from_slice(&buffer[..count]);
        }
    }
}
