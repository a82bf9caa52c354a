//! The layers, in their order.
//!
//! Owns [`launch`], which puts each layer on the calling process and then becomes the program,
//! and the error that says which layer failed. Every layer is required: the program never runs
//! with one missing. Must not know how arguments are written, nor print anything. Before it:
//! the arguments, read by `confinement`; after it: the program.
//!
//! There is no parent-death signal here, on purpose. PR_SET_PDEATHSIG is tied to the parent
//! *thread*, not to its process, and the daemon may spawn from a thread of tokio's pool that
//! ends when it has been idle: the signal would kill a healthy program. What outlives the daemon
//! is for the control group of its unit to end.

use std::convert::Infallible;
use std::env;
use std::error::Error;
use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::confinement::{Confinement, Limits};
use crate::exit;
use crate::sys::{self, Image, Resource};

/// Nobody but the owner gets at a file that the program makes.
const UMASK: u32 = 0o077;

/// Names a layer, as the rest of "cannot ...".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The program's arguments and environment, as the kernel takes them.
    Text,
    /// The directory in which the program starts.
    Directory(PathBuf),
    /// A process group, and a session if possible, of its own.
    Session,
    /// A resource limit: what is limited, and to how much.
    Limit { what: &'static str, to: u64 },
    /// No setuid program gives new privileges.
    NewPrivileges,
    /// No descriptor beyond the first three.
    Descriptors,
    /// No signal blocked, and SIGPIPE not ignored.
    Signals,
    /// Not a layer any more: the program itself.
    Program(PathBuf),
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => write!(f, "pass on arguments and environment"),
            Self::Directory(path) => write!(f, "enter directory `{}`", path.display()),
            Self::Session => write!(f, "start a process group"),
            Self::Limit { what, to } => write!(f, "limit {what} to `{to}`"),
            Self::NewPrivileges => write!(f, "rule out new privileges"),
            Self::Descriptors => write!(f, "close descriptors"),
            Self::Signals => write!(f, "reset signals"),
            Self::Program(path) => write!(f, "execute `{}`", path.display()),
        }
    }
}

/// Says which layer failed; its source says why.
#[derive(Debug)]
pub struct LaunchError {
    /// What could not be done.
    pub layer: Layer,
    /// Why, in the kernel's words.
    pub source: io::Error,
}

impl LaunchError {
    /// Returns the code of [`exit`] with which the launcher ends.
    pub fn exit_code(&self) -> u8 {
        match &self.layer {
            Layer::Program(_) if self.source.kind() == io::ErrorKind::NotFound => exit::NOT_FOUND,
            Layer::Program(_) => exit::CANNOT_EXECUTE,
            _ => exit::LAYER_FAILED,
        }
    }
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}", self.layer)
    }
}

impl Error for LaunchError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

/// Puts every layer on the calling process and becomes the program.
///
/// It is for a process with one thread, and it does not return if it succeeds. After an error
/// the process is confined in part and can only end.
///
/// # Errors
///
/// Names the first layer that could not be applied; the ones behind it were not tried.
pub fn launch(confinement: &Confinement) -> Result<Infallible, LaunchError> {
    // First, because it allocates, which a limit on memory may forbid later.
    let image = prepare(confinement)?;
    sys::set_umask(UMASK);
    enter(confinement)?;
    sys::lead_process_group().map_err(failed(Layer::Session))?;
    limit(&confinement.limits)?;
    sys::forbid_new_privileges().map_err(failed(Layer::NewPrivileges))?;
    sys::close_descriptors_on_execute().map_err(failed(Layer::Descriptors))?;
    // Late, because until now a closed standard error was an error and not our death.
    sys::reset_signals().map_err(failed(Layer::Signals))?;
    let reason = image.execute();
    Err(failed(Layer::Program(confinement.program.clone()))(reason))
}

fn prepare(confinement: &Confinement) -> Result<Image, LaunchError> {
    // A program's first argument is its own name.
    let arguments = std::iter::once(confinement.program.as_os_str())
        .chain(confinement.arguments.iter().map(OsString::as_os_str))
        .map(terminated)
        .collect::<io::Result<Vec<_>>>();
    let environment = environment(&confinement.environment);
    terminated(confinement.program.as_os_str())
        .and_then(|program| Ok(Image::new(program, arguments?, environment?)))
        .map_err(failed(Layer::Text))
}

/// Builds the environment from empty. A name given twice counts once: of two equal entries, some
/// programs take the first and some the last.
fn environment(names: &[String]) -> io::Result<Vec<CString>> {
    let mut names: Vec<&String> = names.iter().collect();
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .filter_map(|name| Some((name, env::var_os(name)?)))
        .map(|(name, value)| {
            let mut entry = OsString::from(name);
            entry.push("=");
            entry.push(value);
            terminated_owned(entry)
        })
        .collect()
}

fn enter(confinement: &Confinement) -> Result<(), LaunchError> {
    env::set_current_dir(&confinement.directory)
        .map_err(failed(Layer::Directory(confinement.directory.clone())))
}

fn limit(limits: &Limits) -> Result<(), LaunchError> {
    let limits = [
        // A core dump would write the program's secrets to a file.
        (Resource::Core, "core dumps", Some(0)),
        (Resource::OpenFiles, "open files", Some(limits.open_files)),
        (Resource::FileSize, "file size", limits.file_size),
        (Resource::CpuSeconds, "processor time", limits.cpu_seconds),
        (Resource::Memory, "memory", limits.memory),
    ];
    for (resource, what, to) in limits {
        if let Some(to) = to {
            sys::lower_limit(resource, to).map_err(failed(Layer::Limit { what, to }))?;
        }
    }
    Ok(())
}

fn failed(layer: Layer) -> impl FnOnce(io::Error) -> LaunchError {
    |source| LaunchError { layer, source }
}

fn terminated(text: &OsStr) -> io::Result<CString> {
    Ok(CString::new(text.as_bytes())?)
}

fn terminated_owned(text: OsString) -> io::Result<CString> {
    Ok(CString::new(text.into_vec())?)
}
