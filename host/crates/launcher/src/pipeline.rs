//! Applies the layers to the program's process, and then executes the program.
//!
//! This module decides the order of the layers. It does not know the options, or how the process is
//! supervised. Before, the inner process (see `supervisor`) has built the root file system and forked the
//! program's process, which runs this module.

use std::convert::Infallible;
use std::env;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use rustix::fs::Mode;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{
    Pid, Resource, Rlimit, Signal, geteuid, getpgrp, getpid, getppid, getrlimit,
    set_parent_process_death_signal, setrlimit, setsid, umask,
};
use rustix::thread::set_no_new_privs;

use crate::call_watch::CallFilter;
use crate::cgroup::Group;
use crate::confinement::Confinement;
use crate::control::Environment;
use crate::error::{LaunchError, Step};
use crate::landlock;
use crate::layer::Layer;
use crate::namespaces::UserNamespace;
use crate::privileges;
use crate::report::LayerState;
use crate::reporter::Reporter;
use crate::rootfs::RootFilesystem;
use crate::sys::{self, Image};
use crate::syscalls;

/// The usual soft limit of open files.
const USUAL_OPEN_FILES: u64 = 1024;

/// The umask of the program. Only the owner has access to files that the program creates.
const UMASK: Mode = Mode::from_raw_mode(0o077);

/// The way in which the program's process enters its control group.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum GroupEntry {
    /// The kernel has created the process in the group.
    AtFork,
    /// The process moves itself into the group.
    ByItself,
}

/// The input of the program's process.
pub(crate) struct Start<'a> {
    pub(crate) confinement: &'a Confinement,
    pub(crate) reporter: &'a Reporter,
    pub(crate) image: &'a Image,
    /// The file descriptors for the program, in the order of [`Confinement::descriptors`].
    pub(crate) descriptors: &'a [OwnedFd],
    /// The process id of the inner process, which supervises the program's process.
    pub(crate) parent: Pid,
    pub(crate) group: &'a Group,
    pub(crate) group_entry: GroupEntry,
    pub(crate) root: RootFilesystem,
    /// Whether the process is in namespaces of its own.
    pub(crate) has_namespaces: bool,
    pub(crate) user_namespace: UserNamespace,
    /// The filter that reports calls, if they are watched.
    pub(crate) filter: Option<&'a CallFilter>,
}

/// Prepares the arguments of execve(2). This step comes before all layers, because the limit on
/// the address space could make a later allocation fail.
pub(crate) fn prepare(
    confinement: &Confinement,
    variables: &Environment,
) -> Result<Image, LaunchError> {
    let program = confinement.program.as_os_str();
    // By convention, the first argument of a program is its name.
    let arguments = std::iter::once(program.to_owned())
        .chain(confinement.arguments.iter().cloned())
        .map(to_c_string)
        .collect::<io::Result<Vec<_>>>();
    let environment = environment(&confinement.environment, variables);
    to_c_string(program.to_owned())
        .and_then(|program| Ok(Image::new(program, arguments?, environment?)))
        .map_err(LaunchError::at(Step::Text))
}

/// Applies each layer to the calling process and executes the program. Returns only on failure.
///
/// # Errors
///
/// The error of the first failed step. Later steps are not tried.
pub(crate) fn become_program(start: &Start<'_>) -> Result<Infallible, LaunchError> {
    let confinement = start.confinement;
    let process_limit = start.enter_group()?;
    umask(UMASK);
    lead_process_group().map_err(LaunchError::at(Step::Session))?;
    env::set_current_dir(&confinement.directory)
        .map_err(LaunchError::at(Step::Directory(confinement.directory.clone())))?;
    start.limit_resources()?;
    start.limit_processes(process_limit)?;
    start.give_up_privileges()?;
    start.confine_files()?;
    pass_descriptors(start.descriptors, &confinement.descriptors)
        .map_err(LaunchError::at(Step::Descriptors))?;
    // SIGPIPE is reset after most reports. With its default action, a report to a closed standard error
    // would kill this process.
    sys::reset_signals().map_err(LaunchError::at(Step::Signals))?;
    start.filter_syscalls()?;
    let reason = start.image.execute();
    Err(LaunchError::at(Step::Program(confinement.program.clone()))(reason))
}

/// Whether the control group limits the number of processes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum ProcessLimit {
    /// The control group limits the number of the program's processes.
    ByGroup,
    /// The control group does not limit processes, so a resource limit of the kernel must.
    Missing,
}

impl Start<'_> {
    /// Enters the control group. Returns whether the group limits the number of processes.
    fn enter_group(&self) -> Result<ProcessLimit, LaunchError> {
        let group = match self.group {
            Group::Created(group) => group,
            Group::Unavailable(reason) => {
                self.degraded(Layer::Cgroup, reason.clone())?;
                return Ok(ProcessLimit::Missing);
            }
            Group::LeftOut => {
                self.reporter.layer(Layer::Cgroup, LayerState::Off, "left out");
                return Ok(ProcessLimit::Missing);
            }
        };
        if self.group_entry == GroupEntry::ByItself
            && let Err(error) = group.enter()
        {
            self.degraded(Layer::Cgroup, format!("cannot enter the control group: {error}"))?;
            return Ok(ProcessLimit::Missing);
        }
        self.reporter.layer(Layer::Cgroup, LayerState::Active, "all processes are killed together");
        Ok(if group.is_counted { ProcessLimit::ByGroup } else { ProcessLimit::Missing })
    }

    fn limit_resources(&self) -> Result<(), LaunchError> {
        let limits = &self.confinement.limits;
        let resources = [
            // Core dumps are disabled, because a core dump would write secrets of the program to a file.
            (Resource::Core, "core dumps", Some(0)),
            (Resource::Nofile, "open files", limits.open_files),
            (Resource::Fsize, "file size", limits.file_size),
            (Resource::Cpu, "processor time", limits.cpu_seconds),
            (Resource::As, "address space", limits.memory),
        ];
        if limits.open_files.is_none() {
            reset_open_files()
                .map_err(LaunchError::in_layer(Layer::Limits, "reset the limit of open files"))?;
        }
        let mut set = Vec::new();
        for (resource, name, limit) in resources {
            if let Some(limit) = limit {
                let what = format!("{name} {limit}");
                lower_limit(resource, limit)
                    .map_err(LaunchError::in_layer(Layer::Limits, &format!("limit {what}")))?;
                set.push(what);
            }
        }
        self.reporter.layer(Layer::Limits, LayerState::Active, set.join(", "));
        Ok(())
    }

    fn limit_processes(&self, in_force: ProcessLimit) -> Result<(), LaunchError> {
        let Some(max) = self.confinement.max_processes() else {
            self.reporter.layer(Layer::Processes, LayerState::Off, "no limit requested");
            return Ok(());
        };
        let for_program = format!("at most {max} in this program");
        if in_force == ProcessLimit::ByGroup {
            // The group is sufficient. RLIMIT_NPROC would count all processes of the user, so it is not set.
            self.reporter.layer(Layer::Processes, LayerState::Active, for_program);
            return Ok(());
        }
        lower_limit(Resource::Nproc, max)
            .map_err(LaunchError::in_layer(Layer::Processes, "limit processes"))?;
        let is_root = self.confinement.user.map_or(geteuid().is_root(), |user| user.uid == 0);
        match self.user_namespace {
            UserNamespace::New(_) => {
                self.reporter.layer(Layer::Processes, LayerState::Active, for_program);
                Ok(())
            }
            UserNamespace::Inherited if is_root => {
                let detail = "the kernel does not apply this limit to root; run playbooks as another user, or give the daemon a control group";
                self.degraded(Layer::Processes, detail.to_owned())
            }
            UserNamespace::Inherited => {
                let detail = format!("at most {max} for its user");
                self.reporter.layer(Layer::Processes, LayerState::Active, detail);
                Ok(())
            }
        }
    }

    fn give_up_privileges(&self) -> Result<(), LaunchError> {
        privileges::bound_capabilities()
            .map_err(LaunchError::in_layer(Layer::Capabilities, "empty the bounding set"))?;
        match self.confinement.user {
            Some(user) => {
                privileges::become_user(user, &self.confinement.groups)
                    .map_err(LaunchError::in_layer(Layer::User, "become another user"))?;
                let detail = format!("{}:{}", user.uid, user.gid);
                self.reporter.layer(Layer::User, LayerState::Active, detail);
            }
            None => self.reporter.layer(Layer::User, LayerState::Off, "the user of the launcher"),
        }
        privileges::drop_capabilities()
            .map_err(LaunchError::in_layer(Layer::Capabilities, "give up capabilities"))?;
        self.reporter.layer(Layer::Capabilities, LayerState::Active, "none");
        self.die_with_parent()?;
        set_no_new_privs(true)
            .map_err(LaunchError::in_layer(Layer::NewPrivileges, "rule out new privileges"))?;
        self.reporter.layer(Layer::NewPrivileges, LayerState::Active, "none");
        Ok(())
    }

    /// Makes the kernel kill this process when the inner process dies, so that the program never runs without
    /// supervision. The kernel resets this setting when the user changes, so this step comes after the layer
    /// `user`.
    fn die_with_parent(&self) -> Result<(), LaunchError> {
        set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(LaunchError::at(Step::Process))?;
        if getppid().is_some_and(|parent| parent != self.parent) {
            let reason = io::Error::other("the supervising process of the launcher has died");
            return Err(LaunchError::at(Step::Process)(reason));
        }
        Ok(())
    }

    fn confine_files(&self) -> Result<(), LaunchError> {
        let layers = landlock::confine(self.confinement, self.root)
            .map_err(|error| error.in_layer(Layer::Files))?;
        for (layer, state, detail) in layers {
            match state {
                LayerState::Degraded
                    if layer == Layer::Sockets && self.root == RootFilesystem::Private =>
                {
                    self.reporter.layer(layer, LayerState::Active, "not in the root file system");
                }
                LayerState::Degraded => self.degraded(layer, detail)?,
                state => self.reporter.layer(layer, state, detail),
            }
        }
        Ok(())
    }

    /// Installs the filters of system calls. This is the last step before `execve`, because the filters also
    /// apply to the calls of this process.
    fn filter_syscalls(&self) -> Result<(), LaunchError> {
        let filters = syscalls::filters(self.has_namespaces)
            .map_err(io::Error::other)
            .map_err(LaunchError::in_layer(Layer::Syscalls, "build the filters"))?;
        self.reporter.layer(
            Layer::Syscalls,
            LayerState::Active,
            format!("{} filters", filters.len()),
        );
        if let Some(filter) = self.filter {
            filter.install().map_err(LaunchError::in_layer(
                Layer::Syscalls,
                "send the listener of the watch",
            ))?;
        }
        for filter in &filters {
            seccompiler::apply_filter(filter)
                .map_err(io::Error::other)
                .map_err(LaunchError::in_layer(Layer::Syscalls, "install a filter"))?;
        }
        Ok(())
    }

    /// Reports that a layer is degraded. Returns an error instead if the layer is required.
    fn degraded(&self, layer: Layer, detail: String) -> Result<(), LaunchError> {
        if self.confinement.requires(layer) {
            let step = Step::RequiredLayer { layer };
            return Err(LaunchError::at(step)(io::Error::other(detail)));
        }
        self.reporter.layer(layer, LayerState::Degraded, detail);
        Ok(())
    }
}

/// Makes the calling process the leader of a new process group and a new session. If the process already
/// leads a group, the kernel refuses a new session. The process then keeps its group, which is sufficient.
fn lead_process_group() -> io::Result<()> {
    match setsid() {
        // The kernel also returns EPERM if another process is in a group with our process id. The error is
        // therefore ignored only if this process leads its group.
        Err(error) if getpgrp() != getpid() => Err(error.into()),
        _ => Ok(()),
    }
}

/// Sets the soft limit of open files to its usual value, whatever that of the launcher's parent is. The hard limit
/// stays. Programs that use select(2) cannot handle more files than that.
fn reset_open_files() -> rustix::io::Result<()> {
    let hard = getrlimit(Resource::Nofile).maximum;
    let soft = hard.map_or(USUAL_OPEN_FILES, |hard| hard.min(USUAL_OPEN_FILES));
    setrlimit(Resource::Nofile, Rlimit { current: Some(soft), maximum: hard })
}

/// Lowers the soft and the hard limit of a resource, so that the program cannot raise the limit again. If the
/// hard limit is already lower, it stays: a limit is never raised, not even for root.
fn lower_limit(resource: Resource, limit: u64) -> rustix::io::Result<()> {
    let hard = getrlimit(resource).maximum;
    let limit = Some(hard.map_or(limit, |hard| limit.min(hard)));
    setrlimit(resource, Rlimit { current: limit, maximum: limit })
}

/// Gives the file descriptors their numbers in the program. All other file descriptors above 2 are closed by
/// `execve`.
fn pass_descriptors(descriptors: &[OwnedFd], numbers: &[u32]) -> io::Result<()> {
    // The file descriptors are first moved above all possible target numbers. Otherwise one could overwrite
    // another.
    let moved = descriptors.iter().map(|descriptor| fcntl_dupfd_cloexec(descriptor, sys::FAR));
    let moved = moved.collect::<Result<Vec<_>, _>>()?;
    sys::close_descriptors_on_execute()?;
    for (descriptor, &number) in moved.iter().zip(numbers) {
        sys::place_descriptor(descriptor.as_fd(), number)?;
    }
    Ok(())
}

/// Builds the environment from the named variables only. A repeated name gets one entry, because programs
/// disagree on which of two entries with the same name is valid.
fn environment(names: &[String], variables: &Environment) -> io::Result<Vec<CString>> {
    let mut names: Vec<&String> = names.iter().collect();
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .filter_map(|name| Some((name, variables.get(name)?)))
        .map(|(name, value)| {
            let mut entry = OsString::from(name);
            entry.push("=");
            entry.push(value);
            to_c_string(entry)
        })
        .collect()
}

fn to_c_string(text: OsString) -> io::Result<CString> {
    Ok(CString::new(text.into_vec())?)
}
