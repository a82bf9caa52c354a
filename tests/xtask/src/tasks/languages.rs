//! Builds the tasks in languages other than Rust: Python with componentize-py, and JavaScript with
//! componentize-qjs. Both tools read `wit/task.wit` and put an interpreter into the component.
//!
//! The tools are slow, so a component is built again only if one of its sources is newer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use super::replace::replace;
use crate::command::{command, run, say};
use crate::{install, repository};

/// The time limit for one component, on a busy machine.
const LIMIT: Duration = Duration::from_secs(10 * 60);
/// Folders that other tools create in the folder of a task.
const NOT_SOURCES: &[&str] = &["__pycache__", "node_modules"];

/// The language of a task.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Language {
    Rust,
    Python,
    JavaScript,
}

impl Language {
    /// Returns the language of the task in this folder, or `None` if the folder is not a task.
    pub(super) fn of(folder: &Path) -> Option<Self> {
        let files = [
            ("Cargo.toml", Self::Rust),
            ("app.py", Self::Python),
            ("package.json", Self::JavaScript),
        ];
        let found = files.into_iter().find(|(file, _)| folder.join(file).is_file());
        found.map(|(_, language)| language)
    }
}

/// Builds the components of the Python tasks that changed.
///
/// # Errors
///
/// If componentize-py cannot be installed, or fails.
pub(super) fn build_python(names: &[String]) -> Result<()> {
    build(names, &install::componentize_py()?, componentize_python)
}

/// Builds the components of the JavaScript tasks that changed.
///
/// # Errors
///
/// If componentize-qjs cannot be installed, or fails.
pub(super) fn build_javascript(names: &[String]) -> Result<()> {
    build(names, &install::componentize_qjs()?, componentize_javascript)
}

/// Builds the components of the tasks that changed. `componentize` returns the command for a tool,
/// the folder of a task and the path of the component.
fn build(
    names: &[String],
    tool: &Path,
    componentize: fn(&Path, &Path, &Path) -> Command,
) -> Result<()> {
    for name in names {
        let source = repository::tasks().join(name);
        let place = repository::tasks().join(format!("{name}.wasm"));
        let made_of = [source.clone(), repository::root().join("wit"), tool.to_owned()];
        if is_fresh(&place, &made_of)? {
            say(&format!("{name} has not changed"));
            continue;
        }
        let made = repository::target().join("xtask").join(format!("{name}.wasm"));
        let mut make = componentize(tool, &source, &made);
        run(&format!("building the component of {name}"), &mut make, LIMIT)?;
        replace(&made, &place).with_context(|| format!("cannot copy `{}`", made.display()))?;
    }
    say(&format!("up to date in tasks/: {}", names.join(", ")));
    Ok(())
}

/// Returns the command for a Python task. Python's standard library imports `wasi:sockets`, which the host
/// does not provide. `--stub-wasi` removes this import and all other imports of WASI.
fn componentize_python(tool: &Path, source: &Path, made: &Path) -> Command {
    let mut build = command(tool);
    build.args(["--wit-path", "wit", "--world", "task", "componentize", "app", "--stub-wasi"]);
    build.arg("--python-path").arg(source).arg("--output").arg(made);
    // Without this variable the task could use the packages of another Python on the `PATH`.
    if let Some(environment) = tool.ancestors().nth(2) {
        build.env("VIRTUAL_ENV", environment);
    }
    build
}

/// Returns the command for a JavaScript task. `--sync` avoids the async ABI of components, which
/// the host does not support.
fn componentize_javascript(tool: &Path, source: &Path, made: &Path) -> Command {
    let mut build = command("node");
    build
        .arg(tool)
        .args(["--wit", "wit", "--world", "task", "--sync", "--js"])
        .arg(source.join("task.js"));
    build.arg("--module-root").arg(source).arg("--output").arg(made);
    build
}

/// Returns whether a component is newer than all its sources.
fn is_fresh(component: &Path, made_of: &[PathBuf]) -> Result<bool> {
    let Ok(made) = fs::metadata(component).and_then(|metadata| metadata.modified()) else {
        return Ok(false);
    };
    for source in made_of {
        let changed = newest(source);
        if changed.with_context(|| format!("cannot read `{}`", source.display()))? >= made {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns the time of the last change of a file, or of a folder and all files in it. The folder counts too,
/// because its time changes when a file is removed.
fn newest(path: &Path) -> std::io::Result<SystemTime> {
    let metadata = fs::metadata(path)?;
    let mut newest = metadata.modified()?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if !NOT_SOURCES.iter().any(|&name| entry.file_name() == name) {
                newest = newest.max(self::newest(&entry.path())?);
            }
        }
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks a component that was built at 100 s from a folder with one file.
    fn check(file: &str, changed: u64, fresh: bool) {
        let folder = tempfile::tempdir().unwrap();
        let [component, source] = ["task.wasm", "task"].map(|name| folder.path().join(name));
        let file = source.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&component, "").unwrap();
        fs::write(&file, "").unwrap();
        set_time(&component, 100);
        set_time(&file, changed);
        set_time(&source, 1);
        assert_eq!(is_fresh(&component, &[source]).unwrap(), fresh, "{}", file.display());
    }

    fn set_time(path: &Path, seconds: u64) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        fs::File::open(path).unwrap().set_modified(time).unwrap();
    }

    #[test]
    fn a_component_is_built_again_if_a_source_is_newer() {
        check("app.py", 99, true);
        check("app.py", 100, false);
        check("app.py", 101, false);
        check("__pycache__/app.pyc", 101, true);
    }

    #[test]
    fn a_missing_component_is_built() {
        let folder = tempfile::tempdir().unwrap();
        let component = folder.path().join("task.wasm");
        assert!(!is_fresh(&component, &[folder.path().to_owned()]).unwrap());
    }
}
