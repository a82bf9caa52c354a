//! The layers that the program's own process puts on itself, in their order.
//!
//! Owns the order. Must not know how arguments are written, nor who watches over the process. Before
//! it: the supervisor, which has made the process and its room; after it: the program.

use std::convert::Infallible;
use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Pid, Signal, geteuid, getppid, set_parent_process_death_signal};
use rustix::thread::set_no_new_privs;

use crate::cgroup::Group;
use crate::confinement::Confinement;
use crate::control::Environment;
use crate::error::{LaunchError, Step};
use crate::landlock::{self, Trouble};
use crate::layer::{Held, Layer, Report};
use crate::privileges;
use crate::sys::{self, Image, Resource};
use crate::syscalls;

/// Nobody but the owner gets at a file that the program makes.
const UMASK: u32 = 0o077;

/// What the program's process finds when it begins.
pub(crate) struct Start<'a> {
    pub(crate) confinement: &'a Confinement,
    pub(crate) image: &'a Image,
    /// What is handed to the program, in the order of its numbers.
    pub(crate) descriptors: &'a [OwnedFd],
    /// The process that watches over this one.
    pub(crate) parent: Pid,
    pub(crate) group: &'a Group,
    /// Whether it is in that already.
    pub(crate) is_in_group: bool,
    /// Whether the file system outside is out of sight.
    pub(crate) in_room: bool,
    /// Whether the number of processes is counted for this program alone.
    pub(crate) counted_apart: bool,
}

/// Lays the program out. First of all, because it allocates, which a limit on memory may forbid.
pub(crate) fn prepare(
    confinement: &Confinement,
    variables: &Environment,
) -> Result<Image, LaunchError> {
    // A program's first argument is its own name.
    let arguments = std::iter::once(confinement.program.as_os_str())
        .chain(confinement.arguments.iter().map(OsString::as_os_str))
        .map(terminated)
        .collect::<io::Result<Vec<_>>>();
    let environment = environment(&confinement.environment, variables);
    terminated(confinement.program.as_os_str())
        .and_then(|program| Ok(Image::new(program, arguments?, environment?)))
        .map_err(failed(Step::Text))
}

/// Puts every layer on the calling process and becomes the program. Does not return if it succeeds.
///
/// # Errors
///
/// Names the first step that failed; the ones behind it were not tried.
pub(crate) fn become_program(
    start: &Start<'_>,
    report: impl Fn(Layer, Held, String),
) -> Result<Infallible, LaunchError> {
    let confinement = start.confinement;
    let is_counted = enter_group(start, &report)?;
    sys::set_umask(UMASK);
    sys::lead_process_group().map_err(failed(Step::Session))?;
    env::set_current_dir(&confinement.directory)
        .map_err(failed(Step::Directory(confinement.directory.clone())))?;
    limit(start, is_counted, &report)?;
    give_up_privileges(start, &report)?;
    confine_files(start, &report)?;
    descriptors(start.descriptors, &confinement.descriptors).map_err(failed(Step::Descriptors))?;
    // Late, because until now a closed standard error was an error and not our death.
    sys::reset_signals().map_err(failed(Step::Signals))?;
    let filters = syscalls::filters().map_err(layer_failed(Layer::Syscalls, "make the filters"))?;
    report(Layer::Syscalls, Held::Yes, format!("{} filters", filters.len()));
    // Last: a filter cannot tell our calls from the program's.
    for filter in &filters {
        seccompiler::apply_filter(filter)
            .map_err(layer_failed(Layer::Syscalls, "install a filter"))?;
    }
    let reason = start.image.execute();
    Err(failed(Step::Program(confinement.program.clone()))(reason))
}

/// Tells whether processes are counted in the group.
fn enter_group(
    start: &Start<'_>,
    report: &impl Fn(Layer, Held, String),
) -> Result<bool, LaunchError> {
    let degraded = |detail| degraded(start, report, Layer::Cgroup, detail);
    let group = match start.group {
        Group::Own(group) => group,
        Group::None(why) => return degraded(why.clone()).map(|()| false),
        Group::Unwanted => {
            report(Layer::Cgroup, Held::Off, "not wanted".to_owned());
            return Ok(false);
        }
    };
    let entered = if start.is_in_group { Ok(()) } else { group.enter() };
    match entered {
        Ok(()) => {
            report(Layer::Cgroup, Held::Yes, "killed as one".to_owned());
            Ok(group.is_counted)
        }
        Err(error) => degraded(format!("cannot enter it: {error}")).map(|()| false),
    }
}

fn limit(
    start: &Start<'_>,
    is_counted: bool,
    report: &impl Fn(Layer, Held, String),
) -> Result<(), LaunchError> {
    let limits = &start.confinement.limits;
    let limits_of_one = [
        // A core dump would write the program's secrets to a file.
        (Resource::Core, "core dumps", Some(0)),
        (Resource::OpenFiles, "open files", limits.open_files),
        (Resource::FileSize, "file size", limits.file_size),
        (Resource::CpuSeconds, "processor time", limits.cpu_seconds),
        (Resource::Memory, "memory", limits.memory),
    ];
    let mut set = Vec::new();
    for (resource, what, to) in limits_of_one {
        if let Some(to) = to {
            let what = format!("{what} {to}");
            sys::lower_limit(resource, to)
                .map_err(|error| layer_failed(Layer::Limits, &format!("limit {what}"))(error))?;
            set.push(what);
        }
    }
    report(Layer::Limits, Held::Yes, set.join(", "));
    limit_processes(start, is_counted, report)
}

fn limit_processes(
    start: &Start<'_>,
    is_counted: bool,
    report: &impl Fn(Layer, Held, String),
) -> Result<(), LaunchError> {
    let confinement = start.confinement;
    let wanted = confinement.limits.processes.filter(|_| wants(confinement, Layer::Processes));
    let Some(most) = wanted else {
        report(Layer::Processes, Held::Off, "not wanted".to_owned());
        return Ok(());
    };
    if is_counted {
        // The kernel's other limit would count those of all programs of the user.
        report(Layer::Processes, Held::Yes, format!("{most} of this program"));
        return Ok(());
    }
    sys::lower_limit(Resource::Processes, most)
        .map_err(layer_failed(Layer::Processes, "limit processes"))?;
    let is_root = confinement.user.map_or(geteuid().is_root(), |user| user.uid == 0);
    if is_root && !start.counted_apart {
        let detail = "the kernel does not hold root to it";
        return degraded(start, report, Layer::Processes, detail.to_owned());
    }
    let whose = if start.counted_apart { "of this program" } else { "of its user" };
    report(Layer::Processes, Held::Yes, format!("{most} {whose}"));
    Ok(())
}

fn give_up_privileges(
    start: &Start<'_>,
    report: &impl Fn(Layer, Held, String),
) -> Result<(), LaunchError> {
    let cannot = |layer, what: &str| layer_failed::<rustix::io::Errno>(layer, what);
    let io_cannot = |layer, what: &str| layer_failed::<io::Error>(layer, what);
    privileges::bound_capabilities()
        .map_err(io_cannot(Layer::Capabilities, "empty the bounding set"))?;
    match start.confinement.user {
        Some(user) => {
            privileges::become_user(user).map_err(io_cannot(Layer::User, "become another user"))?;
            report(Layer::User, Held::Yes, format!("{}:{}", user.uid, user.gid));
        }
        None => report(Layer::User, Held::Off, "the one that started us".to_owned()),
    }
    privileges::drop_capabilities().map_err(io_cannot(Layer::Capabilities, "give them up"))?;
    report(Layer::Capabilities, Held::Yes, "none".to_owned());
    // After the change of user, which takes it back. Whoever watches over us must not leave us alone.
    let died = || Some(start.parent) != getppid() && getppid().is_some();
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed_by_kernel(Step::Process))?;
    if died() {
        return Err(failed(Step::Process)(io::Error::other("whoever watches over it has died")));
    }
    set_no_new_privs(true).map_err(cannot(Layer::NewPrivileges, "rule them out"))?;
    report(Layer::NewPrivileges, Held::Yes, "none".to_owned());
    Ok(())
}

fn confine_files(
    start: &Start<'_>,
    report: &impl Fn(Layer, Held, String),
) -> Result<(), LaunchError> {
    let confinement = start.confinement;
    let wants = |layer| wants(confinement, layer);
    let layers = landlock::confine(confinement, start.in_room, wants).map_err(|error| {
        let (what, source) = match error {
            Trouble::Unsupported => (
                "confine files".to_owned(),
                io::Error::other("this needs Landlock of Linux 6.2 or later, switched on"),
            ),
            Trouble::Path(path, source) => (format!("grant `{}`", path.display()), source),
            Trouble::Ruleset(error) => ("confine files".to_owned(), io::Error::other(error)),
        };
        layer_failed(Layer::Files, &what)(source)
    })?;
    for (layer, held, detail) in layers {
        match held {
            Held::No if layer == Layer::Sockets && start.in_room => {
                report(layer, Held::Yes, "out of sight".to_owned());
            }
            Held::No => degraded(start, report, layer, detail)?,
            held => report(layer, held, detail),
        }
    }
    Ok(())
}

/// Reports a layer that does not hold, unless the program must not run without it.
fn degraded(
    start: &Start<'_>,
    report: &impl Fn(Layer, Held, String),
    layer: Layer,
    detail: String,
) -> Result<(), LaunchError> {
    if start.confinement.requires(layer) {
        return Err(layer_failed(layer, "it is required")(io::Error::other(detail)));
    }
    report(layer, Held::No, detail);
    Ok(())
}

/// Gives the descriptors their numbers, and closes all others beyond the first three.
fn descriptors(handed: &[OwnedFd], numbers: &[u32]) -> io::Result<()> {
    let away = handed.iter().map(|descriptor| fcntl_dupfd_cloexec(descriptor, sys::FAR));
    let away = away.collect::<Result<Vec<_>, _>>()?;
    sys::close_descriptors_on_execute()?;
    for (descriptor, &number) in away.iter().zip(numbers) {
        sys::place_descriptor(descriptor.as_fd(), number)?;
    }
    Ok(())
}

/// Tells whether a layer is wanted.
pub(crate) fn wants(confinement: &Confinement, layer: Layer) -> bool {
    !confinement.without.contains(&layer)
}

/// Makes the line of a report.
pub(crate) fn line(layer: Layer, held: Held, detail: String) -> Report {
    Report::Layer { layer, held, detail }
}

/// Builds the environment from empty. A name given twice counts once: of two equal entries, some
/// programs take the first and some the last.
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
            terminated_owned(entry)
        })
        .collect()
}

pub(crate) fn failed(step: Step) -> impl FnOnce(io::Error) -> LaunchError {
    |source| LaunchError { step, source }
}

pub(crate) fn failed_by_kernel(step: Step) -> impl FnOnce(rustix::io::Errno) -> LaunchError {
    |source| LaunchError { step, source: source.into() }
}

pub(crate) fn layer_failed<E>(layer: Layer, what: &str) -> impl FnOnce(E) -> LaunchError + use<E>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let what = what.to_owned();
    move |source| LaunchError { step: Step::Layer { layer, what }, source: into_io(source) }
}

fn into_io(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    let error = error.into();
    match error.downcast::<io::Error>() {
        Ok(error) => *error,
        Err(error) => match error.downcast::<rustix::io::Errno>() {
            Ok(errno) => (*errno).into(),
            Err(error) => io::Error::other(error),
        },
    }
}

fn terminated(text: &OsStr) -> io::Result<CString> {
    Ok(CString::new(text.as_bytes())?)
}

fn terminated_owned(text: OsString) -> io::Result<CString> {
    Ok(CString::new(text.into_vec())?)
}
