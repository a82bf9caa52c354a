//! Errors in the arguments of `loopabull-launch`.
//!
//! This module defines the error and its text. The text must not contain a value that may be a secret. The
//! module `confinement` returns the error, and `main` prints it.

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
    /// The value of the last option is missing.
    #[error("the value of option `{option}` is missing")]
    MissingValue { option: &'static str },
    /// An option that may be given once is repeated. If the last value applied, an injected option could
    /// raise a limit.
    #[error("option `{option}` is repeated")]
    RepeatedOption { option: &'static str },
    /// A value is not a number, or is outside the range of this option. Limits range from 0 to 2^64 - 1.
    #[error("option `{option}` needs a whole number, not `{}`", .value.display())]
    InvalidNumber { option: &'static str, value: OsString },
    /// The value of `--user` does not have the form `UID:GID`.
    #[error("option `--user` needs `UID:GID` in numbers, not `{}`", .value.display())]
    InvalidUser { value: OsString },
    /// The user or group id is 4294967295, which the kernel reserves for "no change".
    #[error("`{}` is not a valid user or group id", u32::MAX)]
    NoUser,
    /// The name of an environment variable is empty or not UTF-8.
    #[error("option `--env` needs the name of a variable, not `{}`", .name.display())]
    InvalidName { name: OsString },
    /// `--env NAME=VALUE` was given. The message omits the value, which may be a secret.
    #[error("option `--env` needs only the name `{name}`, without a value")]
    ValueForName { name: String },
    /// `--directory` is missing.
    #[error("option `--directory` is missing")]
    NoDirectory,
    /// `--` is missing, or no argument follows `--`.
    #[error("the program after `--` is missing")]
    NoProgram,
    /// The path of the program or of a grant is relative. Only absolute paths are allowed.
    #[error("path `{}` is not absolute", .path.display())]
    RelativePath { path: PathBuf },
    /// The value of `--watch` is unknown.
    #[error("option `--watch` needs `denied-ports` or `everything`, not `{}`", .name.display())]
    UnknownWatch { name: OsString },
    /// The layer does not exist.
    #[error("unknown layer `{}`", .name.display())]
    UnknownLayer { name: OsString },
    /// The options leave out a required layer.
    #[error("the required layer `{layer}` cannot be left out")]
    RequiredLayer { layer: Layer },
    /// A passed-on file descriptor cannot have this number in the program.
    #[error("the number {number} of a file descriptor is not between 3 and 19")]
    DescriptorRange { number: u32 },
    /// The plan names more or fewer file descriptors than the control socket delivered.
    #[error("the plan names {named} file descriptors, but {received} were received")]
    DescriptorCount { named: usize, received: usize },
}
