//! What can be wrong with the arguments of `loopabull-launch`.
//!
//! Owns the error and its words. Must not know how arguments are read, nor repeat a value that
//! may be a secret. Before it: the reader in `confinement`; after it: `main`, which prints it.

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use crate::layer::Layer;

/// Says what is wrong with the arguments of `loopabull-launch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UsageError {
    /// No such option.
    UnknownOption { option: OsString },
    /// Something that is neither an option nor behind `--`.
    UnexpectedArgument { argument: OsString },
    /// An option that ends the arguments, without its value.
    MissingValue { option: &'static str },
    /// An option that may be given once, twice. Taking the last one would let an option that was
    /// slipped in loosen the one before.
    RepeatedOption { option: &'static str },
    /// A limit that is not a number from 0 to 2^64 - 1.
    InvalidNumber { option: &'static str, value: OsString },
    /// The number by which the kernel is told "none", for a user or a group.
    NoUser,
    /// The name of an environment variable that is empty or not UTF-8.
    InvalidName { name: OsString },
    /// `--env NAME=VALUE`. The value is left out here too: it may be a secret.
    ValueForName { name: String },
    /// No `--directory`.
    NoDirectory,
    /// No `--`, or nothing behind it.
    NoProgram,
    /// A program or a grant that would have to be searched for.
    RelativePath { path: PathBuf },
    /// A layer that does not exist.
    UnknownLayer { name: OsString },
    /// A layer without which nothing is run, to be left out.
    NeededLayer { layer: Layer },
    /// A number that no descriptor can be given.
    DescriptorRange { number: u32 },
    /// Another number of descriptors than there are numbers for them.
    Descriptors { named: usize, handed: usize },
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownOption { option } => write!(f, "unknown option `{}`", option.display()),
            Self::UnexpectedArgument { argument } => {
                write!(f, "unexpected argument `{}` before `--`", argument.display())
            }
            Self::MissingValue { option } => write!(f, "missing value of option `{option}`"),
            Self::RepeatedOption { option } => write!(f, "repeated option `{option}`"),
            Self::InvalidNumber { option, value } => {
                write!(f, "option `{option}` needs a whole number, not `{}`", value.display())
            }
            Self::NoUser => write!(f, "no user and no group is {}", u32::MAX),
            Self::InvalidName { name } => {
                write!(f, "invalid name `{}` of option `--env`", name.display())
            }
            Self::ValueForName { name } => {
                write!(f, "option `--env` takes only the name of `{name}`")
            }
            Self::NoDirectory => write!(f, "missing option `--directory`"),
            Self::NoProgram => write!(f, "missing program after `--`"),
            Self::RelativePath { path } => {
                write!(f, "path `{}` is not absolute", path.display())
            }
            Self::UnknownLayer { name } => write!(f, "unknown layer `{}`", name.display()),
            Self::NeededLayer { layer } => write!(f, "layer `{layer}` cannot be left out"),
            Self::DescriptorRange { number } => {
                write!(f, "a descriptor can be 3 to 19, not {number}")
            }
            Self::Descriptors { named, handed } => {
                write!(f, "{named} descriptors are named and {handed} were handed over")
            }
        }
    }
}

impl Error for UsageError {}
