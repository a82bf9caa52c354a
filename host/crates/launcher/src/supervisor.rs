//! The two processes that stand between the daemon and the program.
//!
//! The outer one, which the daemon started, hears signals and notices when the daemon is gone. The
//! inner one is the first of the program's namespaces, or adopts what the program leaves behind where
//! there are none; it furnishes the room, starts the program, and when that has ended kills whatever
//! is left. Owns who waits for whom. Before it: `main`; after it: the pipeline, in a third process.
//!
//! SIGTERM, SIGINT or SIGHUP stops the program: its process group gets SIGTERM. A second one, half a
//! second later or more, kills all that there is: some send one signal twice, to us and to our group. The end of the other side of the control socket does the same at once.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitOptions, WaitStatus, getegid, geteuid, getpid, kill_process,
    kill_process_group, set_child_subreaper, set_dumpable_behavior,
    set_parent_process_death_signal, wait, waitpid,
};
use rustix::thread::{CapabilitySet, capabilities};

use crate::cgroup::Group;
use crate::confinement::Confinement;
use crate::control::{Control, Environment};
use crate::error::{LaunchError, Step};
use crate::exit;
use crate::layer::{Held, Layer, Report, one_line};
use crate::pipeline::{self, Start, failed, failed_by_kernel, layer_failed, line, wants};
use crate::processes;
use crate::room;
use crate::sys::{self, Image};

/// How long what is left of a program may take to be gone after SIGKILL.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long after a first signal a second one still is the same.
const ECHO: Duration = Duration::from_millis(500);
/// How often we look whether it is.
const PAUSE: Duration = Duration::from_millis(2);

/// Where the lines of a report go.
pub enum Reports {
    /// Nowhere: only a failure is told, on standard error.
    None,
    /// To standard error, for a person.
    Stderr,
    /// To the daemon.
    Control(Control),
}

/// What has to be watched over.
pub struct Launch {
    /// What is to be run, and how.
    pub confinement: Confinement,
    /// The variables that the program may have; it has those that the confinement names.
    pub environment: Environment,
    /// What is handed to the program, in the order of its numbers.
    pub descriptors: Vec<OwnedFd>,
    /// Where the report goes.
    pub reports: Reports,
}

/// The process that the outer one waits for.
struct Inner {
    pid: Pid,
    signals: OwnedFd,
}

impl Reports {
    /// Writes a line of the report.
    pub fn write(&self, report: &Report) {
        match self {
            Self::None => (),
            Self::Stderr => drop(writeln!(io::stderr(), "loopabull-launch: {report}")),
            Self::Control(control) => control.report(report),
        }
    }

    /// Tells why the program was not run. A person always learns it.
    pub fn fail(&self, code: u8, reason: String) {
        if !matches!(self, Self::Control(_)) {
            // If nobody can be told, the exit code still is right; a panic's would not be.
            writeln!(io::stderr(), "loopabull-launch: {}", one_line(&reason)).ok();
        }
        self.write(&Report::Failed { code, reason });
    }
}

impl Launch {
    /// Runs the program, and returns the exit code of the launcher: the program's, or 128 and the
    /// number of the signal that ended it, or one of [`exit`].
    pub fn run(&self) -> u8 {
        let group = match wants(&self.confinement, Layer::Cgroup) {
            true => Group::make(self.counted()),
            false => Group::Unwanted,
        };
        let code = match self.start(&group).and_then(|inner| self.watch(&inner)) {
            Ok(code) => code,
            Err(error) => self.fail(&error),
        };
        if let Some(group) = group.own() {
            group.end();
        }
        code
    }

    /// Returns how many processes there may be, if that is wanted.
    fn counted(&self) -> Option<u64> {
        let is_wanted = wants(&self.confinement, Layer::Processes);
        self.confinement.limits.processes.filter(|_| is_wanted)
    }

    fn fail(&self, error: &LaunchError) -> u8 {
        let code = error.exit_code();
        self.reports.fail(code, format!("{error}: {}", error.source));
        code
    }

    /// Starts the inner process: in namespaces if they can be had, else without.
    fn start(&self, group: &Group) -> Result<Inner, LaunchError> {
        let image = pipeline::prepare(&self.confinement, &self.environment)?;
        let signals = sys::block_signals().map_err(failed(Step::Signals))?;
        if !wants(&self.confinement, Layer::Namespaces) {
            self.reports.write(&line(Layer::Namespaces, Held::Off, "not wanted".to_owned()));
            return self.start_without(&image, signals, group);
        }
        match self.start_in_room(&image, &signals, group) {
            Ok(pid) => Ok(Inner { pid, signals }),
            Err(error) if self.confinement.requires(Layer::Namespaces) => Err(error),
            Err(error) => {
                let detail = format!("{error}: {}", error.source);
                self.reports.write(&line(Layer::Namespaces, Held::No, detail));
                self.start_without(&image, signals, group)
            }
        }
    }

    fn start_in_room(
        &self,
        image: &Image,
        signals: &OwnedFd,
        group: &Group,
    ) -> Result<Pid, LaunchError> {
        let cannot = |what: &str| layer_failed::<io::Error>(Layer::Namespaces, what);
        // Without the right to make others, one makes a user namespace and has every right there.
        let is_able =
            capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN));
        let mut namespaces = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC;
        if !is_able {
            namespaces |= libc::CLONE_NEWUSER;
        }
        let ids = (!is_able).then(|| (geteuid().as_raw(), getegid().as_raw()));
        let (read, write) =
            pipe_with(PipeFlags::CLOEXEC).map_err(failed_by_kernel(Step::Process))?;
        let Some(pid) = sys::fork(namespaces).map_err(cannot("make them"))? else {
            drop(read);
            std::process::exit(self.live_in_room(image, signals, group, ids, write).into());
        };
        drop(write);
        let mut complaint = String::new();
        // Its end without a word says that the room is furnished.
        let heard = File::from(read).read_to_string(&mut complaint);
        heard.map_err(cannot("hear of them"))?;
        if complaint.is_empty() {
            return Ok(pid);
        }
        waitpid(Some(pid), WaitOptions::empty()).ok();
        let (what, why) = complaint.split_once('\n').unwrap_or((&complaint, "no reason was given"));
        Err(cannot(what)(io::Error::other(why.to_owned())))
    }

    /// The inner process, as the first of its namespaces.
    fn live_in_room(
        &self,
        image: &Image,
        signals: &OwnedFd,
        group: &Group,
        ids: Option<(u32, u32)>,
        complaints: OwnedFd,
    ) -> u8 {
        let mut complaints = File::from(complaints);
        let furnished = set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|error| ("outlive nobody".to_owned(), error.into()))
            .and_then(|()| ids.map_or(Ok(()), map_ids))
            .and_then(|()| {
                room::furnish(&self.confinement).map_err(|error| (error.what, error.source))
            });
        if let Err((what, source)) = furnished {
            write!(complaints, "{what}\n{source}").ok();
            return exit::LAYER_FAILED;
        }
        drop(complaints);
        let detail = "processes, mounts, shared memory".to_owned();
        self.reports.write(&line(Layer::Namespaces, Held::Yes, detail));
        let in_room = !self.confinement.files.sees_everything();
        self.guard(image, signals, Room { group, in_room, counted_apart: ids.is_some() })
    }

    fn start_without(
        &self,
        image: &Image,
        signals: OwnedFd,
        group: &Group,
    ) -> Result<Inner, LaunchError> {
        let outer = getpid();
        let Some(pid) = sys::fork(0).map_err(failed(Step::Process))? else {
            // Our own signal, which kills all: without namespaces our death alone would not.
            let adopted = set_parent_process_death_signal(Some(Signal::USR1))
                .and_then(|()| set_child_subreaper(Some(getpid())));
            let code = match adopted {
                Ok(()) if rustix::process::getppid() != Some(outer) => exit::LAYER_FAILED,
                Ok(()) => {
                    let room = Room { group, in_room: false, counted_apart: false };
                    self.guard(image, &signals, room)
                }
                Err(error) => self.fail(&failed_by_kernel(Step::Process)(error)),
            };
            std::process::exit(code.into());
        };
        Ok(Inner { pid, signals })
    }

    /// The outer process: hands on signals until the inner one has ended.
    fn watch(&self, inner: &Inner) -> Result<u8, LaunchError> {
        set_dumpable_behavior(DumpableBehavior::NotDumpable).ok();
        let mut signals = Signals::new(&inner.signals);
        let mut control = match &self.reports {
            Reports::Control(control) => Some(control),
            _ => None,
        };
        loop {
            if let Some((_, status)) = waitpid(Some(inner.pid), WaitOptions::NOHANG)
                .map_err(failed_by_kernel(Step::Process))?
            {
                return Ok(exit_code(status));
            }
            let mut watched = vec![PollFd::new(&inner.signals, PollFlags::IN)];
            watched.extend(
                control
                    .map(|control| PollFd::from_borrowed_fd(control.as_fd(), PollFlags::empty())),
            );
            match poll(&mut watched, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => (),
                Err(error) => return Err(failed_by_kernel(Step::Process)(error)),
            }
            let is_alone = watched.get(1).is_some_and(|fd| !fd.revents().is_empty());
            let is_signal = !watched[0].revents().is_empty();
            if is_alone {
                control = None;
                kill_process(inner.pid, Signal::USR1).ok();
            }
            if is_signal {
                match signals.next() {
                    Some(Heard::Stop) => kill_process(inner.pid, Signal::TERM).unwrap_or_default(),
                    Some(Heard::Kill) => kill_process(inner.pid, Signal::USR1).unwrap_or_default(),
                    Some(Heard::Child) | None => (),
                }
            }
        }
    }

    /// The inner process: starts the program, adopts what that leaves behind, and ends it all.
    fn guard(&self, image: &Image, signals: &OwnedFd, room: Room<'_>) -> u8 {
        let parent = getpid();
        let forked = room.group.own().map(|group| sys::fork_into(group.as_fd()));
        // Where that is forbidden, as it may be in a container, the program moves there itself.
        let (forked, is_in_group) = match forked {
            Some(Ok(forked)) => (Ok(forked), true),
            Some(Err(_)) | None => (sys::fork(0), false),
        };
        let program = match forked {
            Ok(Some(program)) => program,
            Ok(None) => {
                let start = Start {
                    confinement: &self.confinement,
                    image,
                    descriptors: &self.descriptors,
                    parent,
                    group: room.group,
                    is_in_group,
                    in_room: room.in_room,
                    counted_apart: room.counted_apart,
                };
                let report = |layer, held, detail| self.reports.write(&line(layer, held, detail));
                let Err(error) = pipeline::become_program(&start, report);
                std::process::exit(self.fail(&error).into());
            }
            Err(error) => return self.fail(&failed(Step::Process)(error)),
        };
        set_dumpable_behavior(DumpableBehavior::NotDumpable).ok();
        let mut signals = Signals::new(signals);
        let mut killed = HashSet::new();
        let status = loop {
            // All that have ended, since one signal may stand for several.
            if let Some(status) = reap(program) {
                break status;
            }
            match signals.next() {
                // It may not lead its group yet; then it ends as soon as it hears signals.
                Some(Heard::Stop) => kill_process_group(program, Signal::TERM)
                    .or_else(|_| kill_process(program, Signal::TERM))
                    .unwrap_or_default(),
                Some(Heard::Kill) => {
                    let others = processes::descendants().unwrap_or_default().into_iter();
                    let others = others.filter(|pid| *pid != program);
                    killed.extend(others);
                    kill_process(program, Signal::KILL).ok();
                }
                Some(Heard::Child) | None => (),
            }
        };
        self.sweep(room.group, &mut killed);
        self.reports.write(&Report::Killed { count: killed.len() });
        self.reports.write(&match status.terminating_signal() {
            Some(signal) => Report::Signalled { signal },
            None => Report::Exited { status: status.exit_status().unwrap_or_default() },
        });
        exit_code(status)
    }

    /// Kills what the program has left behind until nothing is.
    fn sweep(&self, group: &Group, killed: &mut HashSet<Pid>) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = processes::descendants();
            // What makes others all the time may not be in a list, but is in the group.
            let populated = group.own().is_some_and(|group| group.kill().unwrap_or(false));
            let is_empty = !populated && left.as_ref().is_ok_and(HashSet::is_empty);
            if is_empty || Instant::now() > deadline {
                return;
            }
            let left = left.unwrap_or_default();
            if group.own().is_some() {
                killed.extend(&left);
            }
            killed.extend(left.into_iter().filter(|pid| processes::kill(*pid)));
            while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
            std::thread::sleep(PAUSE);
        }
    }
}

/// What is special about where the program runs.
#[derive(Clone, Copy)]
struct Room<'a> {
    group: &'a Group,
    in_room: bool,
    counted_apart: bool,
}

/// What a signal means.
enum Heard {
    Stop,
    Kill,
    Child,
}

/// The signals of this process, one after the other.
struct Signals {
    descriptor: File,
    stopped: Option<Instant>,
}

impl Signals {
    fn new(descriptor: &OwnedFd) -> Self {
        let descriptor = descriptor.try_clone().expect("a descriptor can be had at the start");
        Self { descriptor: descriptor.into(), stopped: None }
    }

    /// Waits for a signal.
    fn next(&mut self) -> Option<Heard> {
        // struct signalfd_siginfo of signalfd(2): 128 bytes, the first four are the signal.
        let mut record = [0; 128];
        self.descriptor.read_exact(&mut record).ok()?;
        let signal = i32::from_ne_bytes([record[0], record[1], record[2], record[3]]);
        Some(match (signal, self.stopped) {
            (libc::SIGCHLD, _) => Heard::Child,
            (libc::SIGUSR1, _) => Heard::Kill,
            (_, Some(first)) if first.elapsed() > ECHO => Heard::Kill,
            _ => {
                self.stopped.get_or_insert_with(Instant::now);
                Heard::Stop
            }
        })
    }
}

/// Reaps all that have ended; returns how the program did, if it is among them.
fn reap(program: Pid) -> Option<WaitStatus> {
    let mut status = None;
    while let Ok(Some((pid, ended))) = wait(WaitOptions::NOHANG) {
        if pid == program {
            status = Some(ended);
        }
    }
    status
}

fn exit_code(status: WaitStatus) -> u8 {
    let code = status.terminating_signal().map(|signal| 128 + signal).or(status.exit_status());
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(exit::LAYER_FAILED)
}

/// Makes the user namespace know one user and one group: our own, under their own numbers.
fn map_ids((uid, gid): (u32, u32)) -> Result<(), (String, io::Error)> {
    let writes = [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("{uid} {uid} 1")),
        ("/proc/self/gid_map", format!("{gid} {gid} 1")),
    ];
    for (file, text) in writes {
        fs::write(file, text).map_err(|error| (format!("write {file}"), error))?;
    }
    Ok(())
}
