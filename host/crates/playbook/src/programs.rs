//! Our programs: the launcher, and those for Ansible.
//!
//! This module finds the launcher, and writes our callback plugin, our Python programs and our inventory to the
//! state directory.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::PlaybookError;

/// The directory of the callback plugin, in `ansible` in the state directory. Ansible loads every file in
/// this directory as a plugin, so the directory must not contain other files.
pub(crate) const PLUGINS: &str = "callback";
/// The Python program that a controller runs, in `ansible` in the state directory.
pub(crate) const CONTROLLER: &str = "controller.py";
/// The Python program that finds the variables which a playbook uses and does not define, in `ansible` in the
/// state directory.
pub(crate) const UNDEFINED_NAMES: &str = "undefined_names.py";
/// The Python program that prints settings of Ansible, in `ansible` in the state directory.
pub(crate) const SETTINGS: &str = "ansible_settings.py";
/// The directory of the system with callback plugins, which is in Ansible's default path.
pub(crate) const SYSTEM_PLUGINS: &str = "/usr/share/ansible/plugins/callback";
/// The inventory that contains only this machine. With this inventory, Ansible uses no ssh and runs modules
/// with its own Python, as with its implicit localhost (Ansible documentation, "Implicit localhost").
pub(crate) const INVENTORY: &str = "localhost.yml";
/// The files that we write for Ansible, with their contents.
const PROGRAMS: [(&str, &str); 5] = [
    ("callback/loopabull_results.py", include_str!("loopabull_results.py")),
    (CONTROLLER, include_str!("controller.py")),
    (UNDEFINED_NAMES, include_str!("undefined_names.py")),
    (SETTINGS, include_str!("ansible_settings.py")),
    (INVENTORY, include_str!("localhost.yml")),
];

/// Writes our programs to a directory that playbooks can read. Returns the canonical path of the
/// directory.
pub(crate) fn write_programs(folder: &Path) -> Result<PathBuf, PlaybookError> {
    for (name, text) in PROGRAMS {
        let file = folder.join(name);
        let cannot = |source| PlaybookError::Plugin { path: file.clone(), source };
        let parent = file.parent().unwrap_or(folder);
        // The user of playbooks reads the files, whatever the umask of the daemon is.
        fs::create_dir_all(parent).map_err(cannot)?;
        for dir in [folder, parent] {
            fs::set_permissions(dir, Permissions::from_mode(0o755)).map_err(cannot)?;
        }
        if fs::read_to_string(&file).is_ok_and(|found| found == text) {
            continue;
        }
        let mut new = tempfile::NamedTempFile::new_in(parent).map_err(cannot)?;
        new.write_all(text.as_bytes()).map_err(cannot)?;
        fs::set_permissions(new.path(), Permissions::from_mode(0o644)).map_err(cannot)?;
        new.persist(&file).map_err(|error| cannot(error.error))?;
    }
    let cannot = |source| PlaybookError::Plugin { path: folder.to_owned(), source };
    folder.canonicalize().map_err(cannot)
}

/// Returns the path of a program beside the running executable. If the program is missing there, the parent
/// directory is searched, because the executable of a test is in the subdirectory `deps`.
pub(crate) fn next_to_executable(program: &str) -> PathBuf {
    let executable = std::env::current_exe().unwrap_or_default();
    let mut folders = executable.ancestors().skip(1).take(2).map(|folder| folder.join(program));
    let beside = folders.next().unwrap_or_else(|| program.into());
    if beside.is_file() { beside } else { folders.find(|path| path.is_file()).unwrap_or(beside) }
}
