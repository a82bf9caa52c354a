//! Errors in the arguments of `loopabull-launch`.
//!
//! Owns the error and its text. Must not know how arguments are read, nor repeat a value that may be
//! a secret. Before it: the reader in `confinement`; after it: `main`, which prints it.

use std::ffi::OsString;
use std::path::PathBuf;

use thiserror::Error;

use crate::layer::Layer;

/// An error in the arguments of `loopabull-launch`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UsageError {
    /// The option does not exist.
    #[error("unknown option `{}`", .option.display())]
    UnknownOption { option: OsString },
    /// An argument before `--` is not an option.
    #[error("unexpected argument `{}` before `--`", .argument.display())]
    UnexpectedArgument { argument: OsString },
    /// The last option lacks its value.
    #[error("missing value of option `{option}`")]
    MissingValue { option: &'static str },
    /// An option that may be given once is given twice. If the last one won, an option that somebody
    /// slipped in could loosen an earlier one.
    #[error("repeated option `{option}`")]
    RepeatedOption { option: &'static str },
    /// A value is not a number, or not in the range of this option; limits go from 0 to 2^64 - 1.
    #[error("option `{option}` needs a whole number, not `{}`", .value.display())]
    InvalidNumber { option: &'static str, value: OsString },
    /// The value of `--user` is not of the form `UID:GID`.
    #[error("option `--user` needs `UID:GID` in numbers, not `{}`", .value.display())]
    InvalidUser { value: OsString },
    /// The user or group id is the number that means "none" to the kernel.
    #[error("`{}` is not a user or group id", u32::MAX)]
    NoUser,
    /// The name of an environment variable is empty or not UTF-8.
    #[error("invalid name `{}` of option `--env`", .name.display())]
    InvalidName { name: OsString },
    /// `--env NAME=VALUE` was given. The message omits the value, which may be a secret.
    #[error("option `--env` takes the name `{name}` without a value")]
    ValueForName { name: String },
    /// `--directory` is missing.
    #[error("missing option `--directory`")]
    NoDirectory,
    /// `--` is missing, or nothing follows it.
    #[error("missing program after `--`")]
    NoProgram,
    /// The path of the program or of a grant is relative; nothing is searched for.
    #[error("path `{}` is not absolute", .path.display())]
    RelativePath { path: PathBuf },
    /// The layer does not exist.
    #[error("unknown layer `{}`", .name.display())]
    UnknownLayer { name: OsString },
    /// A required layer is to be left out.
    #[error("layer `{layer}` cannot be left out")]
    RequiredLayer { layer: Layer },
    /// A descriptor cannot have this number in the program.
    #[error("descriptor number {number} is not between 3 and 19")]
    DescriptorRange { number: u32 },
    /// The plan names more or fewer descriptors than the control socket delivered.
    #[error("wrong number of descriptors: {named} named, {received} received")]
    DescriptorCount { named: usize, received: usize },
}
