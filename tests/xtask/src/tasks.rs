//! `cargo tasks`: builds the example tasks, and copies each component beside its manifest. Also builds the
//! guest that only tests run, and copies it to `tests/fixtures/`.

mod languages;
mod replace;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use crate::command::{say, show};
use crate::repository;
use crate::wasm_target::{TRIPLE, WasmTarget};
use languages::Language;
use replace::replace;

/// The package in `tests/fixtures/` that tries to escape from the sandbox.
const PROBE: &str = "probe";

/// The arguments of the command line.
#[derive(Args)]
pub(crate) struct Options {
    /// Build the Rust tasks in this directory instead; each task must be a separate crate
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Builds the example tasks, or the tasks in the given directory.
///
/// # Errors
///
/// If a compiler is missing and cannot be installed, or a task does not compile.
pub(crate) fn run(options: &Options) -> Result<()> {
    let Some(folder) = &options.folder else { return build() };
    let folder = fs::canonicalize(folder)
        .with_context(|| format!("there is no directory `{}`", folder.display()))?;
    let target = WasmTarget::find_or_install()?;
    build_own(&target, &folder, &names(&folder, Language::Rust)?)
}

/// Builds the example tasks to `tasks/NAME.wasm`, and the guest of the tests to
/// `tests/fixtures/NAME.wasm`.
///
/// # Errors
///
/// In the same cases as [`run`].
pub(crate) fn build() -> Result<()> {
    build_rust()?;
    build_probe()?;
    let folder = repository::tasks();
    languages::build_python(&names(&folder, Language::Python)?)?;
    languages::build_javascript(&names(&folder, Language::JavaScript)?)
}

/// Builds only the example tasks that are written in Rust. Building tasks in other languages needs many more
/// tools, and only the tests of these tasks need their components.
///
/// # Errors
///
/// In the same cases as [`run`].
pub(crate) fn build_rust() -> Result<()> {
    let folder = repository::tasks();
    let is_own = |name: &String| is_workspace(&folder.join(name).join("Cargo.toml"));
    let (own, members): (Vec<_>, Vec<_>) =
        names(&folder, Language::Rust)?.into_iter().partition(is_own);
    let target = WasmTarget::find_or_install()?;
    show("building the example tasks", &mut target.build_command(&folder))?;
    for name in &members {
        place(name, &folder)
            .with_context(|| "add the package to `members` of tasks/Cargo.toml".to_owned())?;
    }
    say(&format!("built into tasks/: {}", members.join(", ")));
    build_own(&target, &folder, &own)
}

/// Builds tasks that are separate workspaces, as `loopabull-host tasks new` makes them.
fn build_own(target: &WasmTarget, folder: &Path, names: &[String]) -> Result<()> {
    for name in names {
        show(&format!("building {name}"), &mut target.build_command(&folder.join(name)))?;
        place(name, folder)?;
        say(&format!("built into {}: {name}", folder.display()));
    }
    Ok(())
}

fn is_workspace(manifest: &Path) -> bool {
    let text = fs::read_to_string(manifest).unwrap_or_default();
    text.lines().any(|line| line.trim() == "[workspace]")
}

/// Copies the component of a package into the folder of its manifest.
fn place(name: &str, folder: &Path) -> Result<()> {
    let component = built(name);
    replace(&component, &folder.join(format!("{name}.wasm")))
        .with_context(|| format!("cannot copy `{}`", component.display()))
}

fn build_probe() -> Result<()> {
    let fixtures = repository::fixtures();
    let target = WasmTarget::find_or_install()?;
    let mut build = target.build_command(&fixtures.join(PROBE));
    show("building the guest of the tests", &mut build)?;
    let component = built(PROBE);
    replace(&component, &fixtures.join(artifact(PROBE)))
        .with_context(|| format!("cannot copy `{}`", component.display()))
}

/// Returns the names of the tasks in one language.
fn names(folder: &Path, language: Language) -> Result<Vec<String>> {
    let cannot = || format!("cannot read `{}`", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        if Language::of(&entry.path()) == Some(language) {
            names.extend(entry.file_name().into_string());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Returns the path to which cargo writes the component of a package.
fn built(name: &str) -> PathBuf {
    repository::tasks().join("target").join(TRIPLE).join("release").join(artifact(name))
}

/// Returns the file name that cargo gives the component of a package.
fn artifact(name: &str) -> String {
    format!("{}.wasm", name.replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_of_a_task_is_known_from_the_files_in_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["flag/Cargo.toml", "greet/Cargo.toml", "snake/app.py", "bean/package.json"];
        for file in files.map(|file| folder.path().join(file)) {
            fs::create_dir(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        fs::create_dir(folder.path().join("target")).unwrap();
        fs::write(folder.path().join("Cargo.toml"), "").unwrap();
        let found = |language| names(folder.path(), language).unwrap();
        assert_eq!(found(Language::Rust), ["flag", "greet"]);
        assert_eq!(found(Language::Python), ["snake"]);
        assert_eq!(found(Language::JavaScript), ["bean"]);
    }

    #[test]
    fn the_file_name_of_a_component_is_that_of_a_library_in_cargo() {
        assert_eq!(artifact("flag-commit-build"), "flag_commit_build.wasm");
    }
}
