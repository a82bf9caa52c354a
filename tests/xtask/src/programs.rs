//! The programs of this repository that a measurement runs. They are built, or taken from a given folder.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::command::{cargo, show};
use crate::repository;

/// The profile with which cargo builds the programs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Profile {
    Debug,
    Release,
}

/// Returns the folder of `loopabull-host` and `loopabull-launch`. Builds both programs if no folder is given.
///
/// # Errors
///
/// If the programs cannot be built, or one of them is missing in the folder.
pub(crate) fn ours(given: Option<&Path>, profile: Profile) -> Result<PathBuf> {
    let folder = match given {
        Some(folder) => std::path::absolute(folder)?,
        None => build(profile)?,
    };
    for program in ["loopabull-host", "loopabull-launch"] {
        let program = folder.join(program);
        ensure!(program.is_file(), "the program `{}` does not exist", program.display());
    }
    Ok(folder)
}

fn build(profile: Profile) -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "-p", "loopabull-host", "-p", "loopabull-launcher"]);
    let folder = match profile {
        Profile::Debug => repository::binaries(),
        Profile::Release => {
            build.arg("--release");
            repository::binaries().with_file_name("release")
        }
    };
    show("building the host", &mut build)?;
    Ok(folder)
}
