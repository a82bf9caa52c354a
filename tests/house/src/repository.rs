//! The files of the repository.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The folders with Rust sources.
const FOLDERS: [&str; 4] = ["host", "guest-sdk", "tests", "tasks"];

/// Returns the root of the repository whose tests run.
///
/// Uses the variable that cargo sets for tests, if it is set. The path that was compiled into this crate may
/// be that of another checkout, if two checkouts share a target directory.
pub fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        package.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into()).join("../..")
    });
    &ROOT
}

/// Returns all Rust files with their text. Build directories are left out.
///
/// # Panics
///
/// If a file cannot be read, or fewer than 50 are found.
pub fn rust_files() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for folder in FOLDERS {
        collect(&root().join(folder), &mut |path| {
            if path.extension().is_some_and(|ending| ending == "rs") {
                files.push((path.to_owned(), read(path)));
            }
        });
    }
    assert!(files.len() > 50, "only {} Rust files were found", files.len());
    files
}

/// Returns the folders of all packages that have a folder `src`.
///
/// # Panics
///
/// If a folder cannot be read.
pub fn crates() -> Vec<PathBuf> {
    let mut crates = Vec::new();
    for folder in FOLDERS {
        collect(&root().join(folder), &mut |path| {
            if path.ends_with("Cargo.toml") {
                let folder = path.parent().expect("the path of a file has a parent");
                if folder.join("src").is_dir() {
                    crates.push(folder.to_owned());
                }
            }
        });
    }
    crates.sort();
    crates
}

pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("cannot read `{}`: {error}", path.display()))
}

fn collect(folder: &Path, visit: &mut impl FnMut(&Path)) {
    let entries = fs::read_dir(folder);
    let entries = entries
        .unwrap_or_else(|error| panic!("cannot read the folder `{}`: {error}", folder.display()));
    for entry in entries.flatten() {
        let path = entry.path();
        if !path.is_dir() {
            visit(&path);
        } else if path.file_name().is_some_and(|name| name != "target") {
            collect(&path, visit);
        }
    }
}
