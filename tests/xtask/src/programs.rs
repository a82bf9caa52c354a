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
        None => build(profile, &["loopabull-host", "loopabull-launcher"])?,
    };
    for program in ["loopabull-host", "loopabull-launch"] {
        let program = folder.join(program);
        ensure!(program.is_file(), "the program `{}` does not exist", program.display());
    }
    Ok(folder)
}

/// Returns the program of the raw limits. Builds it if none is given.
///
/// # Errors
///
/// If it cannot be built.
pub(crate) fn raw_limits(given: Option<&Path>, profile: Profile) -> Result<PathBuf> {
    match given {
        Some(program) => Ok(std::path::absolute(program)?),
        None => Ok(build(profile, &["loopabull-bench"])?.join("loopabull-bench")),
    }
}

fn build(profile: Profile, packages: &[&str]) -> Result<PathBuf> {
    let mut build = cargo();
    build.arg("build").args(packages.iter().flat_map(|package| ["-p", package]));
    let folder = match profile {
        Profile::Debug => repository::binaries(),
        Profile::Release => {
            build.arg("--release");
            repository::binaries().with_file_name("release")
        }
    };
    show(&format!("building {}", packages.join(" and ")), &mut build)?;
    Ok(folder)
}
