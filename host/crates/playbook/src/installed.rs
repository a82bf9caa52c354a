//! What is on this machine: Ansible, its Python, users, and our own programs for Ansible.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use loopabull_launcher::User;

use crate::error::PlaybookError;

/// Our programs for Ansible, where they are beneath `ansible` in the state directory: the callback
/// plugin is alone in its directory, since Ansible loads all that is there.
pub(crate) const PLUGINS: &str = "callback";
pub(crate) const CONTROLLER: &str = "controller.py";
/// This machine as Ansible has it if nobody names hosts: not by ssh, and with Ansible's own Python (Ansible
/// documentation, "Implicit localhost").
pub(crate) const INVENTORY: &str = "localhost.yml";
const PROGRAMS: [(&str, &str); 3] = [
    ("callback/loopabull_results.py", include_str!("loopabull_results.py")),
    (CONTROLLER, include_str!("controller.py")),
    (INVENTORY, include_str!("localhost.yml")),
];

/// A Python, as the first line of a program names it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Python {
    pub(crate) path: PathBuf,
    /// All that comes after it, which is one argument (execve(2)).
    pub(crate) option: Option<String>,
}

/// Puts our programs where playbooks can read them. Returns the directory.
pub(crate) fn write_programs(folder: &Path) -> Result<PathBuf, PlaybookError> {
    for (name, text) in PROGRAMS {
        let file = folder.join(name);
        let cannot = |source| PlaybookError::Plugin { path: file.clone(), source };
        let parent = file.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(cannot)?;
        if fs::read_to_string(&file).is_ok_and(|found| found == text) {
            continue;
        }
        let mut new = tempfile::NamedTempFile::new_in(parent).map_err(cannot)?;
        new.write_all(text.as_bytes()).map_err(cannot)?;
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        fs::set_permissions(new.path(), readable).map_err(cannot)?;
        new.persist(&file).map_err(|error| cannot(error.error))?;
    }
    let cannot = |source| PlaybookError::Plugin { path: folder.to_owned(), source };
    folder.canonicalize().map_err(cannot)
}

/// Returns the Python that the first line of a program names.
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

/// Returns the directories of callback plugins that a configuration of Ansible names: naming ours in the
/// environment would hide them.
pub(crate) fn callback_plugins(config: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(config).unwrap_or_default();
    let beside = config.parent().unwrap_or(Path::new("/"));
    let named = text
        .lines()
        .skip_while(|line| line.trim() != "[defaults]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once(['=', ':']))
        .find(|(key, _)| key.trim() == "callback_plugins");
    let paths = named.map(|(_, paths)| paths.trim()).unwrap_or_default();
    paths.split(':').filter(|path| !path.is_empty()).map(|path| beside.join(path)).collect()
}

/// Where a program that is not the system's is installed: its own tree, and that of its Python.
pub(crate) fn trees(ansible: &Path) -> Vec<PathBuf> {
    // A `bin` may be in somebody's home: only what Python was installed in is taken whole.
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

/// Returns the path of a program without links on the way; the program itself may be one, and looks at the
/// name that it is called by.
pub(crate) fn without_links(program: &Path) -> PathBuf {
    let real = program.parent().and_then(|folder| folder.canonicalize().ok());
    match (real, program.file_name()) {
        (Some(folder), Some(name)) => folder.join(name),
        _ => program.to_owned(),
    }
}

pub(crate) fn find_user(name: &str) -> Result<User, PlaybookError> {
    let unknown = || PlaybookError::NoUser { name: name.to_owned() };
    let user = |uid: &str, gid: &str| Some(User { uid: uid.parse().ok()?, gid: gid.parse().ok()? });
    if let Some((uid, gid)) = name.split_once(':') {
        return user(uid, gid).ok_or_else(unknown);
    }
    // passwd(5): name, password, user, group.
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find_map(|fields| {
        (fields.first() == Some(&name)).then(|| user(fields.get(2)?, fields.get(3)?))
    });
    found.flatten().ok_or_else(unknown)
}

pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// Beside our own executable, or one folder up: a test's executable is in `deps`.
pub(crate) fn beside_ourselves(program: &str) -> PathBuf {
    let ourselves = std::env::current_exe().unwrap_or_default();
    let mut folders = ourselves.ancestors().skip(1).take(2).map(|folder| folder.join(program));
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
    fn a_python_is_named_by_the_first_line() {
        check_python("#!/usr/bin/python3", Some(("/usr/bin/python3", None)));
        check_python("#! /opt/bin/python3.12  -sP ", Some(("/opt/bin/python3.12", Some("-sP"))));
        check_python("#!/usr/bin/env python3", None);
        check_python("#!/bin/sh", None);
        check_python("import sys", None);
    }

    #[test]
    fn a_user_is_a_name_or_two_numbers() {
        assert_eq!(find_user("root").unwrap(), User { uid: 0, gid: 0 });
        assert_eq!(find_user("12:34").unwrap(), User { uid: 12, gid: 34 });
        let error = find_user("no-such-user").unwrap_err().to_string();
        assert_eq!(error, "`no-such-user` under `[playbook]` is no user of this machine");
    }

    #[test]
    fn callback_plugins_of_a_configuration_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("ansible.cfg");
        let text = "[x]\ncallback_plugins = no\n[defaults]\ncallback_plugins = a:/b\n[y]\n";
        std::fs::write(&config, text).unwrap();
        let expected = [folder.path().join("a"), PathBuf::from("/b")];
        assert_eq!(callback_plugins(&config), expected);
    }
}
