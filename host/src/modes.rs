//! The modes of the state directory and of the daemon's files in it.
//!
//! Nobody but their owner has access, whatever the umask of the daemon is. A playbook without namespaces that runs as
//! the user of the daemon can open or close them, so they are set again after each such run.

use std::fs::{self, DirEntry, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Directories of the daemon in the state directory, except those that playbooks use: other modules set their modes.
const OWN_DIRS: [&str; 2] = ["components", "quarantine"];
/// Extensions of the daemon's files in the state directory.
const OWN_FILES: [&str; 5] = ["db", "db-shm", "db-wal", "json", "lock"];

/// Takes the permissions of others from a state directory and from the daemon's files in it. Other files there keep
/// their modes. An entry that cannot be changed does not protect those after it; the first error is returned.
pub(crate) fn restrict(path: &Path, has_other_user: bool) -> Result<(), (PathBuf, io::Error)> {
    let own = if has_other_user { 0o711 } else { 0o700 };
    set_mode(path, own).map_err(|source| (path.to_owned(), source))?;
    let entries = fs::read_dir(path).map_err(|source| (path.to_owned(), source))?;
    let mut result = Ok(());
    for entry in entries {
        let entry = entry.map_err(|source| (path.to_owned(), source))?;
        result = result.and(restrict_entry(&entry).map_err(|source| (entry.path(), source)));
    }
    result
}

fn restrict_entry(entry: &DirEntry) -> io::Result<()> {
    let found = entry.file_type()?;
    let (name, path) = (entry.file_name(), entry.path());
    match path.extension().and_then(|extension| extension.to_str()) {
        _ if found.is_dir() && OWN_DIRS.iter().any(|own| name == *own) => set_mode(&path, 0o700),
        Some(extension) if found.is_file() && OWN_FILES.contains(&extension) => {
            set_mode(&path, 0o600)
        }
        _ => Ok(()),
    }
}

/// Sets the mode of a file or directory if it has another one.
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    let set = fs::metadata(path).and_then(|found| {
        let found = found.permissions().mode() & 0o7777;
        if found & 0o077 & !mode != 0 {
            tracing::warn!("`{}` was accessible to other users", path.display());
        }
        match found == mode {
            true => Ok(()),
            false => fs::set_permissions(path, Permissions::from_mode(mode)),
        }
    });
    // Another process may have removed a file of its own, such as the log of a database that it closed.
    set.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}
