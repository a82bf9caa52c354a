//! Python environments under `target`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::command::{command, output, run_slowly};
use crate::install::need::{Need, prepare};
use crate::repository;

/// For a package from PyPI, over a slow line.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// Makes sure of a Python environment with these packages and returns its folder of programs.
///
/// # Errors
///
/// If Python is missing and cannot be installed, or pip fails.
pub(super) fn environment(python: &str, name: &str, packages: &[&str]) -> Result<PathBuf> {
    let folder = repository::target().join(name);
    let programs = folder.join("bin");
    // Written last: it says that the environment is complete, and of what.
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

/// Returns whether the environment's Python runs: an upgrade of the system may have removed it. A
/// script in `bin` names its Python by an absolute path, so an environment that was moved or copied
/// does not count either.
fn starts(programs: &Path) -> bool {
    let python = programs.join("python");
    let pip = fs::read_to_string(programs.join("pip")).unwrap_or_default();
    pip.contains(&*programs.to_string_lossy()) && output(command(python).arg("--version")).is_ok()
}
