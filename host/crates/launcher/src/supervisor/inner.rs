//! The inner process: starts the program, adopts its orphans, and kills the processes that it leaves behind.
//!
//! The inner process forks the program's process, which applies the layers in `pipeline` and becomes the
//! program. The inner process takes no requests from the daemon: the outer process passes signals on to it.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitOptions, WaitStatus, getpid, getppid, kill_process,
    kill_process_group, set_child_subreaper, set_dumpable_behavior,
    set_parent_process_death_signal, wait,
};

use crate::call_watch::{self, CallFilter, CallWatch};
use crate::cgroup::Group;
use crate::confinement::Confinement;
use crate::error::{LaunchError, LayerError, Step};
use crate::exit;
use crate::layer::Layer;
use crate::namespaces::UserNamespace;
use crate::pipeline::{self, GroupEntry, Start};
use crate::processes;
use crate::report::{LayerState, Report};
use crate::reporter::Reporter;
use crate::rootfs::{self, RootFilesystem};
use crate::supervisor::signals::{Notice, Signals};
use crate::sys::{self, Image};
use crate::watch::Watch;

/// The time for which remaining processes are killed without a pause, so that no process forks faster.
const BURST: Duration = Duration::from_millis(200);
/// After [`BURST`], the pause after each [`FULL_ROUND`] rounds.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long the sweep goes on after the outer process has died.
const ORPHAN_TIMEOUT: Duration = Duration::from_secs(5);
/// In one of this number of rounds, all descendants are killed, and in the others only children.
const FULL_ROUND: u64 = 16;

/// The values that the inner process inherits from the outer process.
pub(super) struct Inner<'a> {
    pub(super) confinement: &'a Confinement,
    pub(super) descriptors: &'a [OwnedFd],
    pub(super) reporter: &'a Reporter,
    pub(super) image: &'a Image,
    pub(super) signals: &'a OwnedFd,
    pub(super) group: &'a Group,
    /// The process id of the outer process. `None` in a PID namespace, which does not contain it.
    pub(super) outer: Option<Pid>,
}

impl Inner<'_> {
    /// Runs the inner process as the first process of its namespaces, and returns its exit code. If the
    /// namespaces cannot be set up, the failed step and the reason are written to `failures`, one line each.
    pub(super) fn run_in_namespaces(&self, users: UserNamespace, mut failures: File) -> u8 {
        let root = match self.set_up_namespaces(users) {
            Ok(root) => root,
            Err(LayerError { what, source }) => {
                write!(failures, "{what}\n{source}").ok();
                return exit::LAYER_FAILED;
            }
        };
        drop(failures);
        let detail = "processes, mounts, shared memory";
        self.reporter.layer(Layer::Namespaces, LayerState::Active, detail);
        self.run(root, users)
    }

    fn set_up_namespaces(&self, users: UserNamespace) -> Result<RootFilesystem, LayerError> {
        set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(LayerError::of("set the parent-death signal"))?;
        users.map_ids()?;
        rootfs::build(self.confinement)
    }

    /// Runs the inner process without namespaces. Returns its exit code.
    pub(super) fn run_without_namespaces(&self) -> u8 {
        // Without a PID namespace, the death of the inner process does not kill the program. If the outer
        // process dies, the inner process therefore gets SIGUSR1, on which it kills all processes.
        let prepared = set_parent_process_death_signal(Some(Signal::USR1))
            .and_then(|()| set_child_subreaper(Some(getpid())));
        match prepared {
            Ok(()) if getppid() != self.outer => exit::LAYER_FAILED,
            Ok(()) => self.run(RootFilesystem::Host, UserNamespace::Inherited),
            Err(error) => self.reporter.fail_launch(&LaunchError::at(Step::Process)(error)),
        }
    }

    /// Runs the program until it ends, and kills the processes that it leaves behind.
    fn run(&self, root: RootFilesystem, user_namespace: UserNamespace) -> u8 {
        let watched = match self.confinement.watch {
            Watch::Nothing => None,
            Watch::DeniedPorts if !self.confinement.wants(Layer::Tcp) => None,
            Watch::DeniedPorts | Watch::Everything => Some(self.confinement),
        };
        // A watch that cannot be made does not stop the program.
        let watch = watched.and_then(|confinement| call_watch::start(confinement).ok());
        let (mut watch, filter) = watch.unzip();
        let program = match self.start_program(root, user_namespace, filter.as_ref()) {
            Ok(program) => program,
            Err(error) => return self.reporter.fail_launch(&error),
        };
        drop(filter);
        set_dumpable_behavior(DumpableBehavior::NotDumpable).ok();
        let mut killed = HashSet::new();
        let status = self.wait_for(program, &mut watch, &mut killed);
        self.sweep(&mut killed);
        self.reporter.write(&Report::Killed { count: killed.len() });
        self.reporter.write(&match status.terminating_signal() {
            Some(signal) => Report::Signalled { signal },
            None => Report::Exited { status: status.exit_status().unwrap_or_default() },
        });
        for report in watch.iter().flat_map(CallWatch::files) {
            self.reporter.write(&report);
        }
        let shortcoming = match &watch {
            Some(watch) => watch.shortcoming(),
            None => watched.map(|_| "the watch could not be made".to_owned()),
        };
        if let Some(reason) = shortcoming {
            self.reporter.write(&Report::Unwatched { reason });
        }
        exit_code(status)
    }

    /// Forks the process that becomes the program.
    fn start_program(
        &self,
        root: RootFilesystem,
        user_namespace: UserNamespace,
        filter: Option<&CallFilter>,
    ) -> Result<Pid, LaunchError> {
        let parent = getpid();
        let forked = self.group.created().map(|group| sys::fork_into(group.as_fd()));
        // A container may forbid `clone3`. Then the program's process moves itself into the group.
        let (forked, group_entry) = match forked {
            Some(Ok(forked)) => (Ok(forked), GroupEntry::AtFork),
            Some(Err(_)) | None => (sys::fork(0), GroupEntry::ByItself),
        };
        if let Some(program) = forked.map_err(LaunchError::at(Step::Process))? {
            return Ok(program);
        }
        let start = Start {
            confinement: self.confinement,
            reporter: self.reporter,
            image: self.image,
            descriptors: self.descriptors,
            parent,
            group: self.group,
            group_entry,
            root,
            has_namespaces: self.outer.is_none(),
            user_namespace,
            filter,
        };
        let Err(error) = pipeline::become_program(&start);
        std::process::exit(self.reporter.fail_launch(&error).into());
    }

    /// Waits for the program, and handles signals and watched calls until it ends. Adds killed processes to `killed`.
    fn wait_for(
        &self,
        program: Pid,
        watch: &mut Option<CallWatch>,
        killed: &mut HashSet<Pid>,
    ) -> WaitStatus {
        let mut signals = Signals::new(self.signals);
        loop {
            // One SIGCHLD may stand for several children, so all ended children are reaped.
            if let Some(status) = reap(program) {
                return status;
            }
            if !self.wait_for_signal(watch.as_mut()) {
                continue;
            }
            match signals.receive() {
                // If the program has no process group yet, only its process gets SIGTERM. The process ends
                // when it unblocks signals.
                Some(Notice::Stop) => kill_process_group(program, Signal::TERM)
                    .or_else(|_| kill_process(program, Signal::TERM))
                    .unwrap_or_default(),
                Some(Notice::Kill) => {
                    let others = processes::descendants().unwrap_or_default().into_iter();
                    killed.extend(others.filter(|pid| *pid != program));
                    kill_process(program, Signal::KILL).ok();
                }
                Some(Notice::ChildEnded) | None => (),
            }
        }
    }

    /// Waits for a signal or a watched call, and handles the call. Returns true if there is a signal.
    fn wait_for_signal(&self, watch: Option<&mut CallWatch>) -> bool {
        let Some(watch) = watch else { return true };
        let mut watched = vec![PollFd::new(self.signals, PollFlags::IN)];
        watched.extend(watch.descriptor().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        if poll(&mut watched, None).is_err() {
            return false;
        }
        let has_signal = !watched[0].revents().is_empty();
        let call = watched.get(1).map_or(PollFlags::empty(), PollFd::revents);
        if !call.is_empty() {
            watch.handle(call.contains(PollFlags::IN), self.reporter);
        }
        has_signal
    }

    /// Kills the processes that the program has left behind, until none remains. A process that cannot be killed keeps
    /// the run from ending; the daemon's deadline for the run still applies.
    ///
    /// Orphans become children of this process, so without a child there is no descendant either. A list of
    /// all processes could lack one that forks and exits all the time. In a PID namespace, the kernel kills what is
    /// left when this process exits.
    fn sweep(&self, killed: &mut HashSet<Pid>) {
        let group = self.group.created();
        let start = Instant::now();
        for round in 0_u64.. {
            let is_populated = group.is_some_and(|group| group.kill().unwrap_or(false));
            let is_alone = reap_left(killed).is_none() && !is_populated;
            let is_late = start.elapsed() > BURST && getpid() == Pid::INIT;
            // Nobody waits for this process any more.
            let is_orphan = start.elapsed() > ORPHAN_TIMEOUT && getppid() != self.outer;
            if is_alone || is_late || is_orphan {
                return;
            }
            // The children alone are listed faster than a process can fork, which a list of all is not.
            let left = match processes::children() {
                Some(children) if !round.is_multiple_of(FULL_ROUND) => children,
                _ => processes::descendants().unwrap_or_default(),
            };
            if group.is_some() && round == 0 {
                killed.extend(&left);
            }
            killed.extend(left.into_iter().filter(|pid| processes::kill(*pid)));
            match start.elapsed() < BURST || !round.is_multiple_of(FULL_ROUND) {
                true => std::thread::yield_now(),
                false => std::thread::sleep(POLL_INTERVAL),
            }
        }
    }
}

/// Returns the exit code of the launcher for the wait status of a process.
pub(super) fn exit_code(status: WaitStatus) -> u8 {
    let code = status.terminating_signal().map(|signal| 128 + signal).or(status.exit_status());
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(exit::LAYER_FAILED)
}

/// Reaps all children that have ended. Returns the wait status of the program if it is one of them.
fn reap(program: Pid) -> Option<WaitStatus> {
    let mut status = None;
    while let Ok(Some((pid, ended))) = wait(WaitOptions::NOHANG) {
        if pid == program {
            status = Some(ended);
        }
    }
    status
}

/// Reaps all children that have ended, and adds those that SIGKILL ended to `killed`. Returns `None` if no child
/// is left.
fn reap_left(killed: &mut HashSet<Pid>) -> Option<()> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status)))
                if status.terminating_signal() == Some(Signal::KILL.as_raw()) =>
            {
                killed.insert(pid);
            }
            Ok(Some(_)) => (),
            Err(Errno::CHILD) => return None,
            Ok(None) | Err(_) => return Some(()),
        }
    }
}
