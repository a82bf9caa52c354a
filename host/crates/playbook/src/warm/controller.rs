//! One controller: a process that keeps Ansible imported, from its start to its end.
//!
//! Owns the conversation with `controller.py`. Must not know which controllers there are.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use loopabull_launcher::{Layer, Report};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio_util::sync::CancellationToken;

use crate::error::{ControllerError, LostError, chain};
use crate::folder::{Folder, HOME};
use crate::plan::LaunchPlan;
use crate::process::launch;
use crate::warm::protocol::{Command, Connection, MAX_LINE, Reply, text};
use crate::watch::{End, EndRequest, KILL_TIMEOUT, Limits, Pipes, Running, watch};

/// How long a controller may take to import Ansible.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a controller may take to accept a run.
const TAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A process that has Ansible imported.
#[derive(Debug)]
pub(crate) struct Controller {
    key: String,
    child: Child,
    /// Brings the reports of the launcher. Dropping it ends everything.
    launcher: BufReader<UnixStream>,
    layers: Vec<Report>,
    connection: Connection,
    folder: Folder,
    /// The files that it imported and read, and their state at that time.
    watched: Vec<(PathBuf, Option<FileState>)>,
    /// The paths that are mounted for it, and their identity at that time: a file that has taken the
    /// place of one of them is not visible to it.
    granted: Vec<(PathBuf, Option<Identity>)>,
    runs: u32,
    idle_since: Instant,
    /// The end of the current run.
    ended: Vec<Report>,
    /// Everything that the current run changed for the next one.
    spent: String,
}

/// The inode, the size, and the time of the last change in seconds and nanoseconds.
type FileState = (u64, u64, i64, i64);

/// The device and the inode.
type Identity = (u64, u64);

/// The result of handing a run to a controller.
#[derive(Debug)]
pub(crate) enum Ran {
    /// Nothing was run. The controller must be ended.
    Refused,
    Ended {
        end: End,
        reuse: Reuse,
    },
}

/// Whether a controller can have another run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reuse {
    Yes,
    No,
}

impl Controller {
    /// Starts a controller and waits until it is ready.
    pub(crate) async fn start(
        launcher: &Path,
        plan: &LaunchPlan,
        key: String,
        folder: Folder,
    ) -> Result<Self, ControllerError> {
        // Before anything is mounted.
        let granted = plan.confinement.files.all();
        let granted = granted.map(|path| (path.to_owned(), identity(path))).collect();
        let (connection, theirs) = Connection::pair().map_err(ControllerError::Pipe)?;
        let output = [Stdio::inherit(), Stdio::inherit()];
        let (child, control) = launch(launcher, plan, &[theirs.as_fd()], output)?;
        drop(theirs);
        let mut controller = Self {
            key,
            child,
            launcher: BufReader::new(control),
            layers: Vec::new(),
            connection,
            folder,
            watched: Vec::new(),
            granted,
            runs: 0,
            idle_since: Instant::now(),
            ended: Vec::new(),
            spent: String::new(),
        };
        let ready = tokio::time::timeout(READY_TIMEOUT, controller.become_ready()).await;
        ready.unwrap_or(Err(ControllerError::NotReady { timeout: READY_TIMEOUT }))?;
        Ok(controller)
    }

    async fn become_ready(&mut self) -> Result<(), ControllerError> {
        let Reply::Ready { guard, watch } = self.connection.receive().await? else {
            return Err(ControllerError::Unexpected);
        };
        if guard != "landlock" {
            return Err(ControllerError::Unguarded);
        }
        let watched = |path: PathBuf| (path.clone(), state(&path));
        self.watched = watch.into_iter().map(watched).collect();
        self.layers = self.read_layers().await?;
        Ok(())
    }

    /// Reads the reports about the layers, which the launcher wrote before the controller was ready.
    async fn read_layers(&mut self) -> Result<Vec<Report>, ControllerError> {
        let mut layers = Vec::new();
        while layers.len() < Layer::ALL.len() {
            let mut line = String::new();
            let mut reports = (&mut self.launcher).take(MAX_LINE);
            reports.read_line(&mut line).await.map_err(ControllerError::Receive)?;
            layers.push(line.trim_end().parse().map_err(|()| ControllerError::NoLayers)?);
        }
        Ok(layers)
    }

    /// Returns the text that is equal for all runs that it can serve.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Returns how many runs it had.
    pub(crate) fn runs(&self) -> u32 {
        self.runs
    }

    /// Returns the folder in which the files of a run must be.
    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Returns since when it waits for a run.
    pub(crate) fn idle_since(&self) -> Instant {
        self.idle_since
    }

    /// Notes that it waits for a run from now on.
    pub(crate) fn start_idle(&mut self) {
        self.idle_since = Instant::now();
    }

    /// Tells whether it has ended or differs from a new controller.
    pub(crate) fn is_outdated(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
            || self.watched.iter().any(|(path, before)| *before != state(path))
            || self.granted.iter().any(|(path, before)| *before != identity(path))
    }

    /// Empties its folder.
    pub(crate) async fn empty_folder(&self) -> Reuse {
        match self.folder.empty().await {
            Ok(()) => Reuse::Yes,
            Err(error) => {
                let folder = self.folder.path().display();
                tracing::debug!("ending a controller: cannot empty `{folder}`: {error}");
                Reuse::No
            }
        }
    }

    /// Ends it and removes its folder.
    pub(crate) async fn end(self) {
        let Self { mut child, launcher, connection, folder, .. } = self;
        // The launcher kills everything when its control socket is closed.
        drop((launcher, connection));
        if tokio::time::timeout(KILL_TIMEOUT, child.wait()).await.is_err() {
            drop(child.kill().await);
        }
        folder.remove().await;
    }

    /// Runs Ansible with these arguments.
    pub(crate) async fn run(
        &mut self,
        arguments: &[OsString],
        limits: Limits<'_>,
        cancel: &CancellationToken,
    ) -> Ran {
        self.runs += 1;
        let pipes = match self.hand_over(arguments, limits, cancel).await {
            Ok(pipes) => pipes,
            Err(error @ ControllerError::NotTaken { .. }) => {
                tracing::warn!("ending a controller that hangs: {}", chain(&error));
                return Ran::Refused;
            }
            Err(error) => {
                tracing::debug!("ending a controller without a run: {}", chain(&error));
                return Ran::Refused;
            }
        };
        (self.ended, self.spent) = (Vec::new(), String::new());
        let mut end = match self.connection.send(Command::Go) {
            Ok(()) => watch(self, pipes, limits, cancel).await,
            Err(error) => End::lost(error.into()),
        };
        if end.cause.is_err() {
            // It had the run, which may have done all its work: the run is not repeated here.
            return Ran::Ended { end, reuse: Reuse::No };
        }
        end.reports.clone_from(&self.layers);
        end.reports.append(&mut self.ended);
        if !self.spent.is_empty() {
            tracing::debug!("ending a controller: its run has changed {}", self.spent);
            return Ran::Ended { end, reuse: Reuse::No };
        }
        Ran::Ended { end, reuse: self.empty_folder().await }
    }

    /// Sends a run and waits until the controller has it. It does not fork before
    /// [`Command::Go`].
    async fn hand_over(
        &mut self,
        arguments: &[OsString],
        limits: Limits<'_>,
        cancel: &CancellationToken,
    ) -> Result<Pipes, ControllerError> {
        let arguments = arguments.iter().map(|argument| text(Path::new(argument)));
        let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
        let directory = self.folder.path().join(HOME);
        let (pipes, ends) = Pipes::make().map_err(ControllerError::Pipe)?;
        let descriptors = [ends.stdout.as_fd(), ends.stderr.as_fd(), ends.results.as_fd()];
        let sent = self.connection.send_run(&arguments, text(&directory)?, descriptors);
        sent.map_err(ControllerError::Send)?;
        drop(ends);
        let timeout = TAKE_TIMEOUT.min(limits.timeout);
        let reply = tokio::select! {
            reply = tokio::time::timeout(timeout, self.connection.receive()) => {
                reply.unwrap_or(Err(ControllerError::NotTaken { timeout }))
            }
            () = cancel.cancelled() => Err(ControllerError::Cancelled),
        };
        match reply? {
            Reply::Taken {} => Ok(pipes),
            Reply::Ready { .. } | Reply::Ended { .. } => Err(ControllerError::Unexpected),
        }
    }
}

impl Running for Controller {
    async fn wait(&mut self) -> Result<(), LostError> {
        match self.connection.receive().await? {
            Reply::Ended { exit, signal, killed, spent } => {
                self.ended.push(Report::Killed { count: killed });
                self.ended.extend(exit.map(|status| Report::Exited { status }));
                self.ended.extend(signal.map(|signal| Report::Signalled { signal }));
                self.spent = spent;
                Ok(())
            }
            Reply::Ready { .. } | Reply::Taken {} => Err(ControllerError::Unexpected.into()),
        }
    }

    fn ask(&mut self, request: EndRequest) -> Result<(), LostError> {
        let command = match request {
            EndRequest::Stop => Command::Stop,
            EndRequest::Kill => Command::Kill,
        };
        Ok(self.connection.send(command)?)
    }

    /// Kills the launcher, and with it everything that the controller started.
    async fn abandon(&mut self) -> Result<(), LostError> {
        drop(self.child.start_kill());
        self.ended = vec![Report::Killed { count: 0 }, Report::Signalled { signal: 9 }];
        self.spent = "everything: it had to be killed".to_owned();
        Ok(())
    }
}

fn state(path: &Path) -> Option<FileState> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
}

fn identity(path: &Path) -> Option<Identity> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}
