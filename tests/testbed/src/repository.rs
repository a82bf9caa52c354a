//! Finds the checkout of the repository whose tests are running.
//!
//! A program must not rely on the path that was compiled into it. If two checkouts share a target directory,
//! cargo uses the same file names for both, and one checkout may run a program that was compiled in the other
//! (seen with cargo 1.95).

use std::env;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// A path that exists only in the root of a checkout. `Cargo.toml` would not be enough, because `tasks/` is a
/// workspace too.
const LANDMARK: &str = "tests/testbed/Cargo.toml";

/// Returns the root of the checkout.
///
/// This is the checkout of the package that cargo runs or tests, or else the checkout of the working
/// directory. If a program is started outside every checkout, it is the checkout that compiled this crate.
pub fn repository() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        // `cargo run`, `cargo test` and `cargo nextest` set this variable for the programs that
        // they start.
        let package = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let compiled = Path::new(env!("CARGO_MANIFEST_DIR"));
        let places = [package, env::current_dir().ok(), Some(compiled.to_owned())];
        let root = places.iter().flatten().find_map(|place| checkout_of(place));
        root.unwrap_or(compiled).to_owned()
    });
    &ROOT
}

/// Returns the root of the checkout that a path is in.
fn checkout_of(path: &Path) -> Option<&Path> {
    path.ancestors().find(|folder| folder.join(LANDMARK).is_file())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_checkout_is_found_from_each_of_its_folders() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
        for checkout in [&first, &second] {
            fs::create_dir_all(checkout.join("tests/testbed")).unwrap();
            fs::write(checkout.join(LANDMARK), "").unwrap();
            fs::create_dir_all(checkout.join("tasks")).unwrap();
            fs::write(checkout.join("tasks/Cargo.toml"), "[workspace]\n").unwrap();
        }
        assert_eq!(checkout_of(&first.join("tests/xtask")), Some(first.as_path()));
        assert_eq!(checkout_of(&second.join("tasks/greet")), Some(second.as_path()));
        assert_eq!(checkout_of(&second), Some(second.as_path()));
        assert_eq!(checkout_of(folder.path()), None);
    }

    #[test]
    fn the_repository_is_the_checkout_of_the_tested_package() {
        let package =
            env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets this variable for tests");
        assert_eq!(Some(repository()), checkout_of(Path::new(&package)));
    }
}
