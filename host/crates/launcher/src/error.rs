//! The reasons why a program was not run.
//!
//! This module defines [`LaunchError`], with its text and its exit code. It does not know how a step is done.
//! The other modules return the error of a failed step, and the supervisor reports the error.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::exit;
use crate::layer::Layer;

/// A step of a launch. Its `Display` text completes a sentence that begins with "cannot".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Encode the program's arguments and environment variables for the kernel.
    Text,
    /// Read the plan from the control socket.
    Plan,
    /// Create or watch a process of the launcher or of the program.
    Process,
    /// Apply a layer. `what` names the part of the layer that failed.
    Layer { layer: Layer, what: String },
    /// Apply a required layer that this machine does not support.
    RequiredLayer { layer: Layer },
    /// Tell the program's processes from others: it has no namespaces, no control group and no user of its own.
    Separation,
    /// Enter the working directory of the program.
    Directory(PathBuf),
    /// Create a process group, and a session if possible.
    Session,
    /// Pass on the named file descriptors and close all others.
    Descriptors,
    /// Block signals, or unblock them and reset SIGPIPE for the program.
    Signals,
    /// Execute the program.
    Program(PathBuf),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => write!(f, "pass on the arguments and environment variables"),
            Self::Plan => write!(f, "read the plan from the control socket"),
            Self::Process => write!(f, "start or supervise a process"),
            Self::Layer { layer, what } => write!(f, "apply layer `{layer}`: cannot {what}"),
            Self::RequiredLayer { layer } => write!(f, "apply required layer `{layer}`"),
            Self::Separation => write!(
                f,
                "tell the program's processes from others: layers `namespaces` and `cgroup` are not available \
                 and the program runs as the user of the launcher"
            ),
            Self::Directory(path) => write!(f, "enter directory `{}`", path.display()),
            Self::Session => write!(f, "create a process group"),
            Self::Descriptors => write!(f, "pass on or close file descriptors"),
            Self::Signals => write!(f, "set up the signals"),
            Self::Program(path) => write!(f, "execute `{}`", path.display()),
        }
    }
}

/// A failed step, with the reason.
#[derive(Debug, Error)]
#[error("cannot {step}")]
pub struct LaunchError {
    /// The step that failed.
    pub step: Step,
    /// The reason of the failure, usually an error of a system call.
    pub source: io::Error,
}

impl LaunchError {
    /// Returns a function for `map_err` that makes the error of this step.
    pub(crate) fn at<E: Into<io::Error>>(step: Step) -> impl FnOnce(E) -> Self {
        move |source| Self { step, source: source.into() }
    }

    /// Returns a function for `map_err` that makes the error of a part of a layer.
    pub(crate) fn in_layer<E>(layer: Layer, what: &str) -> impl FnOnce(E) -> Self + use<E>
    where
        E: Into<io::Error>,
    {
        Self::at(Step::Layer { layer, what: what.to_owned() })
    }

    /// Returns the exit code of the launcher for this error: one of the constants in [`exit`].
    pub fn exit_code(&self) -> u8 {
        match &self.step {
            // The program's own limits can cause most of these errors.
            Step::Program(_) => match self.source.kind() {
                io::ErrorKind::NotFound => exit::NOT_FOUND,
                _ => exit::CANNOT_EXECUTE,
            },
            _ if is_shortage(&self.source) => exit::SHORT_OF_RESOURCES,
            _ => exit::LAYER_FAILED,
        }
    }
}

/// Returns true if a system call failed because the machine is short of a resource. The call may succeed later.
pub fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let shortages = [
        Errno::AGAIN,
        Errno::DQUOT,
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
        Errno::NOSPC,
    ];
    Errno::from_io_error(error).is_some_and(|errno| shortages.contains(&errno))
}

/// A failed part of a layer. The caller decides whether the failure matters, because only required layers
/// must be applied.
#[derive(Debug, Error)]
#[error("cannot {what}")]
pub(crate) struct LayerError {
    pub(crate) what: String,
    pub(crate) source: io::Error,
}

impl LayerError {
    /// Returns a function for `map_err` that makes this error. `what` completes a sentence that begins with
    /// "cannot".
    pub(crate) fn of<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self { what, source: source.into() }
    }

    /// Turns the error into the error of a launch, for a layer that is required.
    pub(crate) fn in_layer(self, layer: Layer) -> LaunchError {
        LaunchError { step: Step::Layer { layer, what: self.what }, source: self.source }
    }

    /// Returns the text of the error and its reason, for the detail in a report.
    pub(crate) fn detail(&self) -> String {
        format!("{self}: {}", self.source)
    }
}

/// Returns the error for a granted path that contains a symbolic link.
pub(crate) fn symlink_in_grant() -> io::Error {
    io::Error::other("the path contains a symbolic link; grant its target instead")
}
