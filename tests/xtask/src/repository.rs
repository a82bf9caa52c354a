//! Where things are in the repository.

use std::env;
use std::path::{Path, PathBuf};

/// Returns the root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("this package is two folders below the root")
}

/// Returns where our own things are kept: logs, tools, Python environments. Git ignores it.
pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// Returns where cargo leaves the binaries of the workspace.
pub(crate) fn binaries() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(target, |dir| root().join(dir));
    target.join("debug")
}

/// Returns the folder of the example tasks.
pub(crate) fn tasks() -> PathBuf {
    root().join("tasks")
}

/// Returns the folder of the components that only tests run.
pub(crate) fn fixtures() -> PathBuf {
    root().join("tests/fixtures")
}
