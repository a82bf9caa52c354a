//! The programs on this machine: Ansible, its Python interpreter, and our own programs for Ansible.
//!
//! This module finds Ansible and Python, and writes our callback plugin, controller and inventory to the
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

/// The Python interpreter that the first line of a script names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Python {
    pub(crate) path: PathBuf,
    /// The rest of the line, which the kernel passes to the interpreter as one argument (execve(2)).
    pub(crate) option: Option<String>,
}

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

/// Returns the Python interpreter that the first line of a script names. `None` if the line names no
/// Python.
pub(crate) fn interpreter(program: &Path) -> Option<Python> {
    let text = fs::read(program).ok()?;
    let line = text.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?.trim();
    let (path, option) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let (path, option) = (PathBuf::from(path), Some(option.trim()));
    let name = path.file_name()?.to_str()?;
    let is_python = path.is_absolute() && name.starts_with("python");
    let option = option.filter(|option| !option.is_empty()).map(str::to_owned);
    is_python.then_some(Python { path, option })
}

/// Returns the directory trees in which Ansible and its Python are installed. Trees of the system are left
/// out, because every playbook may read the system's directories anyway.
pub(crate) fn trees(ansible: &Path) -> Vec<PathBuf> {
    // The parent of `bin` may be a user's home. The whole tree is granted only if the tree contains a Python
    // installation; otherwise only the program is granted.
    let is_python = |tree: &Path| {
        let mut names = fs::read_dir(tree.join("lib")).into_iter().flatten().flatten();
        tree.join("pyvenv.cfg").is_file()
            || names.any(|entry| entry.file_name().to_string_lossy().starts_with("python3"))
    };
    let tree = |program: &Path| {
        let tree = program.parent()?.parent()?;
        Some(if is_python(tree) { tree } else { program }.to_owned())
    };
    let python = interpreter(ansible).map(|python| python.path);
    let real = python.as_deref().and_then(|python| python.canonicalize().ok());
    let trees = [Some(ansible), python.as_deref(), real.as_deref()];
    let trees = trees.map(|program| program.and_then(tree));
    let is_system = |tree: &PathBuf| tree.starts_with("/usr") || tree == Path::new("/");
    trees
        .into_iter()
        .flatten()
        .filter_map(|tree| tree.canonicalize().ok())
        .filter(|tree| !is_system(tree))
        .collect()
}

/// Returns the path of a program with the symbolic links in its directories resolved. The last component
/// may still be a link, because the program may depend on the name by which it is called.
pub(crate) fn without_links(program: &Path) -> PathBuf {
    let real = program.parent().and_then(|folder| folder.canonicalize().ok());
    match (real, program.file_name()) {
        (Some(folder), Some(name)) => folder.join(name),
        _ => program.to_owned(),
    }
}

/// Finds a program in the absolute directories of `PATH`.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// Returns the path of a program beside the running executable. If the program is missing there, the parent
/// directory is searched, because the executable of a test is in the subdirectory `deps`.
pub(crate) fn next_to_executable(program: &str) -> PathBuf {
    let executable = std::env::current_exe().unwrap_or_default();
    let mut folders = executable.ancestors().skip(1).take(2).map(|folder| folder.join(program));
    let beside = folders.next().unwrap_or_else(|| program.into());
    if beside.is_file() { beside } else { folders.find(|path| path.is_file()).unwrap_or(beside) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_python(line: &str, expected: Option<(&str, Option<&str>)>) {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("ansible-playbook");
        fs::write(&program, format!("{line}\nimport sys\n")).unwrap();
        let expected = expected
            .map(|(path, option)| Python { path: path.into(), option: option.map(str::to_owned) });
        assert_eq!(interpreter(&program), expected, "{line}");
    }

    #[test]
    fn the_first_line_names_the_python() {
        check_python("#!/usr/bin/python3", Some(("/usr/bin/python3", None)));
        check_python("#! /opt/bin/python3.12  -sP ", Some(("/opt/bin/python3.12", Some("-sP"))));
        check_python("#!/usr/bin/env python3", None);
        check_python("#!/bin/sh", None);
        check_python("import sys", None);
    }
}
