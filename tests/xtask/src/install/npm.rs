//! Folders of npm packages under `target`.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::command::{command, run_slowly};
use crate::install::need::{Need, prepare};
use crate::repository;

/// For packages from npm, over a slow line.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// Makes sure of packages from npm and returns their folder of programs.
///
/// # Errors
///
/// If npm is missing and cannot be installed, or it fails.
pub(super) fn packages(name: &str, packages: &[&str]) -> Result<PathBuf> {
    let folder = repository::target().join(name);
    let programs = folder.join("node_modules/.bin");
    // Written last: it says that the folder is complete, and of what.
    let marker = folder.join("packages.txt");
    let wanted = packages.join("\n") + "\n";
    let cannot = || format!("cannot make a fresh `{}`", folder.display());
    // The programs are scripts, which look for `node` on the `PATH`.
    prepare(&[Need::Node])?;
    if fs::read_to_string(&marker).is_ok_and(|found| found == wanted) {
        return Ok(programs);
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
    Ok(programs)
}
