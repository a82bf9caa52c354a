//! The outer process: starts the inner process, and passes signals to it until it has ended.
//!
//! The outer process also creates and removes the control group, and decides whether the inner process runs
//! in namespaces. `main` calls this module.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitOptions, geteuid, getpid, kill_process,
    set_dumpable_behavior, waitpid,
};

use crate::cgroup::Group;
use crate::confinement::Confinement;
use crate::control::Environment;
use crate::error::{LaunchError, LayerError, Step};
use crate::layer::Layer;
use crate::namespaces::UserNamespace;
use crate::pipeline;
use crate::report::LayerState;
use crate::reporter::Reporter;
use crate::supervisor::inner::{self, Inner};
use crate::supervisor::signals::{Notice, Signals};
use crate::sys::{self, Image};

/// A program to run, with everything that it gets.
pub struct Launch {
    /// The program and its grants.
    pub confinement: Confinement,
    /// The available environment variables. The program gets those that the confinement names.
    pub environment: Environment,
    /// The file descriptors for the program, in the order of [`Confinement::descriptors`].
    pub descriptors: Vec<OwnedFd>,
    /// The destination of the report.
    pub reporter: Reporter,
}

impl Launch {
    /// Runs the program. Returns the exit code of the launcher: that of the program, or 128
    /// plus the number of the signal that ended the program, or a code of [`exit`](crate::exit).
    pub fn run(&self) -> u8 {
        let group = match self.confinement.wants(Layer::Cgroup) {
            true => Group::create(self.confinement.max_processes()),
            false => Group::LeftOut,
        };
        let code = self.supervise(&group).unwrap_or_else(|error| self.reporter.fail_launch(&error));
        if let Some(group) = group.created() {
            group.remove();
        }
        code
    }

    fn supervise(&self, group: &Group) -> Result<u8, LaunchError> {
        let image = pipeline::prepare(&self.confinement, &self.environment)?;
        let signals = sys::block_signals().map_err(LaunchError::at(Step::Signals))?;
        let inner = self.start(&self.inner(&image, &signals, group))?;
        self.watch(inner, &signals)
    }

    fn inner<'a>(&'a self, image: &'a Image, signals: &'a OwnedFd, group: &'a Group) -> Inner<'a> {
        Inner {
            confinement: &self.confinement,
            descriptors: &self.descriptors,
            reporter: &self.reporter,
            image,
            signals,
            group,
            outer: None,
        }
    }

    /// Starts the inner process, in namespaces if possible, and returns its process id.
    fn start(&self, inner: &Inner<'_>) -> Result<Pid, LaunchError> {
        if !self.confinement.wants(Layer::Namespaces) {
            self.reporter.layer(Layer::Namespaces, LayerState::Off, "left out");
            return start_without_namespaces(inner);
        }
        match start_in_namespaces(inner) {
            Ok(pid) => Ok(pid),
            Err(error) if self.confinement.requires(Layer::Namespaces) => {
                Err(error.in_layer(Layer::Namespaces))
            }
            Err(error) => {
                self.reporter.layer(Layer::Namespaces, LayerState::Degraded, error.detail());
                start_without_namespaces(inner)
            }
        }
    }

    /// Passes signals to the inner process until it ends. When the control socket is closed, sends SIGUSR1 to
    /// the inner process. Returns the exit code of the launcher.
    fn watch(&self, inner: Pid, descriptor: &OwnedFd) -> Result<u8, LaunchError> {
        set_dumpable_behavior(DumpableBehavior::NotDumpable).ok();
        let mut signals = Signals::new(descriptor);
        let mut control = match &self.reporter {
            Reporter::Control(control) => Some(control),
            _ => None,
        };
        loop {
            if let Some((_, status)) =
                waitpid(Some(inner), WaitOptions::NOHANG).map_err(LaunchError::at(Step::Process))?
            {
                return Ok(inner::exit_code(status));
            }
            let mut watched = vec![PollFd::new(descriptor, PollFlags::IN)];
            // With empty flags, `poll` only reports that the other end of the control socket is closed.
            watched.extend(
                control
                    .map(|control| PollFd::from_borrowed_fd(control.as_fd(), PollFlags::empty())),
            );
            match poll(&mut watched, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => (),
                Err(error) => return Err(LaunchError::at(Step::Process)(error)),
            }
            let is_closed = watched.get(1).is_some_and(|fd| !fd.revents().is_empty());
            let has_signal = !watched[0].revents().is_empty();
            if is_closed {
                control = None;
                kill_process(inner, Signal::USR1).ok();
            }
            if has_signal {
                match signals.receive() {
                    Some(Notice::Stop) => kill_process(inner, Signal::TERM).unwrap_or_default(),
                    Some(Notice::Kill) => kill_process(inner, Signal::USR1).unwrap_or_default(),
                    Some(Notice::ChildEnded) | None => (),
                }
            }
        }
    }
}

/// Starts the inner process in namespaces, and waits until it has built the root file system.
fn start_in_namespaces(inner: &Inner<'_>) -> Result<Pid, LayerError> {
    let users = UserNamespace::needed();
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(LayerError::of("create a pipe"))?;
    let forked = sys::fork(users.clone_flags()).map_err(LayerError::of("create namespaces"))?;
    let Some(pid) = forked else {
        drop(read);
        std::process::exit(inner.run_in_namespaces(users, write.into()).into());
    };
    drop(write);
    let mut failure = String::new();
    // If the inner process closes the pipe without writing, it has built the root file system.
    let received = File::from(read).read_to_string(&mut failure);
    received.map_err(LayerError::of("receive the result of the inner process"))?;
    if failure.is_empty() {
        return Ok(pid);
    }
    waitpid(Some(pid), WaitOptions::empty()).ok();
    let (what, reason) =
        failure.split_once('\n').unwrap_or((&failure, "the inner process gave no reason"));
    Err(LayerError { what: what.to_owned(), source: io::Error::other(reason.to_owned()) })
}

/// Starts the inner process without namespaces.
///
/// Without a control group and a user of its own too, nothing but the process tree tells the program's processes
/// from others of the same user, and the program can harm those. So this is an error, unless both layers were
/// left out by name.
fn start_without_namespaces(inner: &Inner<'_>) -> Result<Pid, LaunchError> {
    let confinement = inner.confinement;
    let has_own_user = confinement.user.is_some_and(|user| user.uid != geteuid().as_raw());
    let is_wanted =
        [Layer::Namespaces, Layer::Cgroup].iter().any(|layer| confinement.wants(*layer));
    if is_wanted && !has_own_user && inner.group.created().is_none() {
        let reason = "run it as another user, or leave out both layers by name";
        return Err(LaunchError::at(Step::Separation)(io::Error::other(reason)));
    }
    let inner = Inner { outer: Some(getpid()), ..*inner };
    let Some(pid) = sys::fork(0).map_err(LaunchError::at(Step::Process))? else {
        std::process::exit(inner.run_without_namespaces().into());
    };
    Ok(pid)
}
