//! Python environments under `target`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::command::{command, output, run_slowly};
use crate::install::need::{Need, prepare};
use crate::repository;

/// The time limit for an installation from PyPI over a slow network.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// Creates a Python environment with these packages if it does not exist, and returns the folder of its
/// programs.
///
/// # Errors
///
/// If pip fails, or Python is missing and cannot be installed.
pub(super) fn environment(python: &str, name: &str, packages: &[&str]) -> Result<PathBuf> {
    let folder = repository::target().join(name);
    let programs = folder.join("bin");
    // This file is written last. It lists the packages of a complete environment.
    let marker = folder.join("requirements.txt");
    let wanted = packages.join("\n") + "\n";
    if fs::read_to_string(&marker).is_ok_and(|found| found == wanted) && starts(&programs) {
        return Ok(programs);
    }
    prepare(&[Need::Python])?;
    let mut venv = command(python);
    venv.args(["-m", "venv", "--clear"]).arg(&folder);
    let what = format!("making the Python environment target/{name}");
    run_slowly(&what, Duration::from_secs(10), &mut venv, LIMIT)?;
    let mut pip = command(programs.join("python"));
    pip.args(["-m", "pip", "install", "--no-input"]).args(packages);
    let what = format!("installing from PyPI {}", packages.join(", "));
    run_slowly(&what, Duration::from_secs(30), &mut pip, LIMIT)?;
    fs::write(&marker, wanted).with_context(|| format!("cannot write `{}`", marker.display()))?;
    Ok(programs)
}

/// Returns whether an environment can be used. Its Python must start: an upgrade of the system may have
/// removed it. Its scripts must contain the path of this environment: if the environment was moved or copied,
/// they would start another Python.
fn starts(programs: &Path) -> bool {
    let python = programs.join("python");
    let pip = fs::read_to_string(programs.join("pip")).unwrap_or_default();
    pip.contains(&*programs.to_string_lossy()) && output(command(python).arg("--version")).is_ok()
}
