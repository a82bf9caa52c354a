//! The atomic copy of a built component.

use std::fs;
use std::path::Path;

/// Copies a file atomically. A daemon that reads the file at the same time sees the old component or the new
/// one, never a part of it.
pub(super) fn replace(from: &Path, to: &Path) -> std::io::Result<()> {
    let part = to.with_extension(format!("wasm.{}.part", std::process::id()));
    fs::copy(from, &part)?;
    fs::rename(&part, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_replaces_the_previous_one() {
        let folder = tempfile::tempdir().unwrap();
        let [from, to] = ["new.wasm", "task.wasm"].map(|name| folder.path().join(name));
        fs::write(&from, "new").unwrap();
        fs::write(&to, "old").unwrap();
        replace(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
