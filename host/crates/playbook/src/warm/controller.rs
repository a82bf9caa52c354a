//! One controller: a process that has imported Ansible, from its start to its end.
//!
//! This module starts and ends the controller, and exchanges commands and replies with `controller.py`. It
//! does not know the pool of controllers, which is in the module `warm`.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use loopabull_launcher::{Layer, Report};
use loopabull_model::chain;
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio_util::sync::CancellationToken;

use crate::error::{ControllerError, LostError};
use crate::folder::{Folder, HOME};
use crate::plan::LaunchPlan;
use crate::process::launch;
use crate::warm::protocol::{Command, Connection, MAX_LINE, Reply, text};
use crate::watch::{End, EndRequest, KILL_TIMEOUT, Limits, Pipes, Running, watch};

/// The timeout for a controller to import Ansible.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// The timeout for a controller to accept a run.
const TAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A process that has imported Ansible.
#[derive(Debug)]
pub(crate) struct Controller {
    key: String,
    child: Child,
    /// The control socket of the launcher, with its reports. Dropping the socket ends the launcher and the
    /// controller.
    launcher: BufReader<UnixStream>,
    layers: Vec<Report>,
    connection: Connection,
    folder: Folder,
    /// The paths that the controller imported or read, with their state when the controller became ready.
    watched: Vec<(PathBuf, Option<FileState>)>,
    /// The granted paths, with their identity before they were mounted. If a granted path is replaced by
    /// another file, the controller still sees the old file and is out of date.
    granted: Vec<(PathBuf, Option<Identity>)>,
    runs: u32,
    idle_since: Instant,
    /// The reports about the end of the current run.
    ended: Vec<Report>,
    /// The names of everything that the current run changed in the controller's process or namespaces. If
    /// this text is not empty, the controller must not serve another run.
    spent: String,
}

/// The inode, the size, and the time of the last change in seconds and nanoseconds.
type FileState = (u64, u64, i64, i64);

/// The device and the inode.
type Identity = (u64, u64);

/// The result of [`Controller::run`].
#[derive(Debug)]
pub(crate) enum Ran {
    /// The playbook was not run. The controller must be ended.
    Refused,
    /// The run has ended.
    Ended { end: End, reuse: Reuse },
}

/// Whether a controller can serve another run.
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
        // The identity must be that of the files that the launcher is about to mount.
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

    /// Reads the reports about the layers. The launcher wrote them before the controller became ready.
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

    /// Returns the key. The controller can serve all runs that have the same key.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Returns the number of runs that were given to this controller.
    pub(crate) fn runs(&self) -> u32 {
        self.runs
    }

    /// Returns the folder for the files of a run.
    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Returns the time since which the controller is idle.
    pub(crate) fn idle_since(&self) -> Instant {
        self.idle_since
    }

    /// Marks the controller as idle from now on.
    pub(crate) fn start_idle(&mut self) {
        self.idle_since = Instant::now();
    }

    /// Returns whether the controller has ended, or whether a new controller would import or see other files.
    pub(crate) fn is_outdated(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
            || self.watched.iter().any(|(path, before)| *before != state(path))
            || self.granted.iter().any(|(path, before)| *before != identity(path))
    }

    /// Removes all files that a run left in the folder. Returns whether the controller can serve another run.
    pub(crate) async fn empty_folder(&self) -> Reuse {
        match self.folder.empty().await {
            Ok(()) => Reuse::Yes,
            Err(error) => {
                let folder = self.folder.path().display();
                tracing::debug!(
                    "ending a controller, because its folder `{folder}` cannot be emptied: {error}"
                );
                Reuse::No
            }
        }
    }

    /// Ends the controller and removes its folder.
    pub(crate) async fn end(self) {
        let Self { mut child, launcher, connection, folder, .. } = self;
        // When its control socket is closed, the launcher kills the controller and all of its processes.
        drop((launcher, connection));
        if tokio::time::timeout(KILL_TIMEOUT, child.wait()).await.is_err() {
            drop(child.kill().await);
        }
        folder.remove().await;
    }

    /// Runs `ansible-playbook` with these arguments in a fork of the controller.
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
                tracing::warn!("ending a controller that does not respond: {}", chain(&error));
                return Ran::Refused;
            }
            Err(error) => {
                tracing::debug!(
                    "ending a controller, because it cannot take the run: {}",
                    chain(&error)
                );
                return Ran::Refused;
            }
        };
        (self.ended, self.spent) = (Vec::new(), String::new());
        let mut end = match self.connection.send(Command::Go) {
            Ok(()) => watch(self, pipes, limits, cancel).await,
            Err(error) => End::lost(error.into()),
        };
        if end.cause.is_err() {
            // The run may have started and done all its work, so it must not be repeated as a cold run.
            return Ran::Ended { end, reuse: Reuse::No };
        }
        end.reports.clone_from(&self.layers);
        end.reports.append(&mut self.ended);
        let denied = self.denied();
        if !denied.is_empty() {
            // The launcher reports a port once, and the next run must be told too.
            tracing::debug!("ending a controller, because its run was denied a port");
            end.reports.extend(denied);
            return Ran::Ended { end, reuse: Reuse::No };
        }
        if !self.spent.is_empty() {
            tracing::debug!("ending a controller, because its run changed {}", self.spent);
            return Ran::Ended { end, reuse: Reuse::No };
        }
        Ran::Ended { end, reuse: self.empty_folder().await }
    }

    /// Returns the reports about denied ports. The launcher reports a port before it lets the connection continue, so all
    /// reports have arrived.
    fn denied(&mut self) -> Vec<Report> {
        let mut text = self.launcher.buffer().to_vec();
        self.launcher.consume(text.len());
        let mut part = [0; 1 << 10];
        while let Ok((_, count @ 1..)) =
            recv(self.launcher.get_ref(), &mut part, RecvFlags::DONTWAIT)
        {
            text.extend_from_slice(&part[..count]);
        }
        let text = String::from_utf8_lossy(&text);
        let reports = text.lines().filter_map(|line| line.parse().ok());
        reports.filter(|report| matches!(report, Report::Denied { .. })).collect()
    }

    /// Sends a run and waits until the controller has accepted it. The controller does not fork before
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

    /// Kills the launcher. Its death kills the controller and all of its processes.
    async fn abandon(&mut self) -> Result<(), LostError> {
        drop(self.child.start_kill());
        self.ended = vec![Report::Killed { count: 0 }, Report::Signalled { signal: 9 }];
        self.spent = "everything, because the controller had to be killed".to_owned();
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
