//! `cargo tasks`: builds the example tasks and leaves each component beside its manifest. The guest
//! that the tests need goes to `tests/fixtures/`.

mod languages;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::{say, show};
use crate::repository;
use crate::wasm_target::{TRIPLE, WasmTarget};
use languages::Language;

/// The guest that tries to get out, a package in `tests/fixtures/`.
const PROBE: &str = "probe";

/// Builds the example tasks to `tasks/NAME.wasm`, and the guests of tests to
/// `tests/fixtures/NAME.wasm`.
///
/// # Errors
///
/// If a compiler cannot be had, or a task does not compile.
pub(crate) fn build() -> Result<()> {
    build_rust()?;
    build_probe()?;
    let folder = repository::tasks();
    languages::build_python(&names(&folder, Language::Python)?)?;
    languages::build_javascript(&names(&folder, Language::JavaScript)?)
}

/// Builds those that are written in Rust: the others' tools are many, and nothing but their tests
/// needs them.
///
/// # Errors
///
/// If the compiler cannot be had, or a task does not compile.
pub(crate) fn build_rust() -> Result<()> {
    let folder = repository::tasks();
    let names = names(&folder, Language::Rust)?;
    let target = WasmTarget::find_or_install()?;
    show("building the example tasks", &mut target.build_command(&folder))?;
    for name in &names {
        let component = built(name);
        let place = folder.join(format!("{name}.wasm"));
        replace(&component, &place).with_context(|| {
            let component = component.display();
            format!("cannot copy `{component}`; is its package in `members` of tasks/Cargo.toml?")
        })?;
    }
    say(&format!("in tasks/: {}", names.join(", ")));
    Ok(())
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

/// Returns where cargo leaves the component of a package.
fn built(name: &str) -> PathBuf {
    repository::tasks().join("target").join(TRIPLE).join("release").join(artifact(name))
}

/// Returns the file name that cargo gives the component of a package.
fn artifact(name: &str) -> String {
    format!("{}.wasm", name.replace('-', "_"))
}

/// Copies in one step: a daemon that looks meanwhile sees the old component or the new one.
fn replace(from: &Path, to: &Path) -> std::io::Result<()> {
    let part = to.with_extension(format!("wasm.{}.part", std::process::id()));
    fs::copy(from, &part)?;
    fs::rename(&part, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_tasks_by_what_they_hold() {
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
    fn component_is_named_as_cargo_names_libraries() {
        assert_eq!(artifact("flag-commit-build"), "flag_commit_build.wasm");
    }

    #[test]
    fn component_replaces_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let [from, to] = ["new.wasm", "task.wasm"].map(|name| folder.path().join(name));
        fs::write(&from, "new").unwrap();
        fs::write(&to, "old").unwrap();
        replace(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
