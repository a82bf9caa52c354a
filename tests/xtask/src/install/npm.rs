//! Folders of npm packages under `target`.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::command::{command, run_slowly};
use crate::install::need::{Need, prepare};
use crate::repository;

/// The time limit for an installation from npm over a slow network.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// Installs packages from npm if they are missing, and returns their `node_modules` folder.
///
/// # Errors
///
/// If npm fails, or is missing and cannot be installed.
pub(super) fn packages(name: &str, packages: &[&str]) -> Result<PathBuf> {
    let folder = repository::target().join(name);
    let modules = folder.join("node_modules");
    // This file is written last. It lists the packages of a complete folder.
    let marker = folder.join("packages.txt");
    let wanted = packages.join("\n") + "\n";
    let cannot = || format!("cannot create the empty folder `{}`", folder.display());
    // `node` runs the programs of the packages, so it must be on the `PATH` even if they are installed.
    prepare(&[Need::Node])?;
    if fs::read_to_string(&marker).is_ok_and(|found| found == wanted) {
        return Ok(modules);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(cannot)?;
    }
    fs::create_dir_all(&folder).with_context(cannot)?;
    let mut npm = command("npm");
    npm.args(["install", "--no-save", "--no-package-lock", "--ignore-scripts"]);
    npm.args(["--no-audit", "--no-fund"]).arg("--prefix").arg(&folder).args(packages);
    let what = format!("installing from npm {}", packages.join(", "));
    run_slowly(&what, Duration::from_secs(20), &mut npm, LIMIT)?;
    fs::write(&marker, wanted).with_context(|| format!("cannot write `{}`", marker.display()))?;
    Ok(modules)
}
