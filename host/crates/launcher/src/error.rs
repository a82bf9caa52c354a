//! Why a program was not run.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::exit;
use crate::layer::Layer;

/// Names what could not be done, as the rest of "cannot ...".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The program's arguments and environment, as the kernel takes them.
    Text,
    /// The plan from the control socket.
    Plan,
    /// Another process, to watch over the program or to become it.
    Process,
    /// A layer, with what of it.
    Layer { layer: Layer, what: String },
    /// The directory in which the program starts.
    Directory(PathBuf),
    /// A process group, and a session if possible, of its own.
    Session,
    /// No descriptor but those that were named.
    Descriptors,
    /// No signal blocked, and SIGPIPE not ignored.
    Signals,
    /// The program itself.
    Program(PathBuf),
}

/// Says what could not be done; its source says why.
#[derive(Debug)]
pub struct LaunchError {
    /// What could not be done.
    pub step: Step,
    /// Why, in the kernel's words.
    pub source: io::Error,
}

impl LaunchError {
    /// Returns the code of [`exit`] with which the launcher ends.
    pub fn exit_code(&self) -> u8 {
        match &self.step {
            Step::Program(_) if self.source.kind() == io::ErrorKind::NotFound => exit::NOT_FOUND,
            Step::Program(_) => exit::CANNOT_EXECUTE,
            _ => exit::LAYER_FAILED,
        }
    }
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot ")?;
        match &self.step {
            Step::Text => write!(f, "pass on arguments and environment"),
            Step::Plan => write!(f, "read the plan from the control socket"),
            Step::Process => write!(f, "start another process"),
            Step::Layer { layer, what } => write!(f, "hold the layer `{layer}`: {what}"),
            Step::Directory(path) => write!(f, "enter directory `{}`", path.display()),
            Step::Session => write!(f, "start a process group"),
            Step::Descriptors => write!(f, "close descriptors"),
            Step::Signals => write!(f, "reset signals"),
            Step::Program(path) => write!(f, "execute `{}`", path.display()),
        }
    }
}

impl Error for LaunchError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}
