//! The folders of the repository that the commands read and write.

use std::env;
use std::path::{Path, PathBuf};

/// Returns the root of the checkout in which cargo runs this program.
pub(crate) fn root() -> &'static Path {
    loopabull_testbed::repository()
}

/// Returns the checkout that compiled this program, or `None` if it is the checkout of [`root`].
pub(crate) fn compiled_in() -> Option<&'static Path> {
    let compiled = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2)?;
    other_checkout(compiled, root())
}

/// Returns `compiled` if it is a checkout other than `root`.
fn other_checkout<'a>(compiled: &'a Path, root: &Path) -> Option<&'a Path> {
    let [real_compiled, real_root] = [compiled, root].map(|path| path.canonicalize().ok());
    let is_other = real_compiled? != real_root? && compiled.join("tests/xtask").is_dir();
    is_other.then_some(compiled)
}

/// Returns the folder of logs, tools and Python environments. Git ignores it. Each checkout has its own, even
/// if several checkouts share `CARGO_TARGET_DIR`.
pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// Returns the folder to which cargo writes the binaries of the workspace.
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_program_from_another_checkout_is_detected() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second, gone] =
            ["first", "second", "gone"].map(|name| folder.path().join(name));
        for checkout in [&first, &second] {
            fs::create_dir_all(checkout.join("tests/xtask")).unwrap();
        }
        assert_eq!(other_checkout(&first, &second), Some(first.as_path()));
        assert_eq!(other_checkout(&first, &first), None);
        assert_eq!(other_checkout(&gone, &first), None);
    }
}
