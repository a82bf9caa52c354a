//! The installation of Ansible: the program, its Python, and the directories that belong to it.
//!
//! Ansible may be a package of the system, or installed by pip for one user, by pipx, or in a virtual environment.
//! This module finds out what a playbook must be able to read, and which variables Python needs.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::PlaybookError;

/// An installation of Ansible.
#[derive(Debug)]
pub(crate) struct Installation {
    /// The path of `ansible-playbook`, without symbolic links in its directories.
    pub(crate) program: PathBuf,
    /// The Python interpreter of `ansible-playbook`. `None` if the program is not a Python script.
    pub(crate) python: Option<Python>,
    /// The directories of Ansible and its Python that are outside the system's directories.
    pub(crate) trees: Vec<PathBuf>,
    /// The directory with the packages that pip installed for one user (`PYTHONUSERBASE`), if Ansible is one of
    /// them.
    pub(crate) user_base: Option<PathBuf>,
    /// The path under which the program was looked for, if the configuration names one.
    named: Option<PathBuf>,
    pub(crate) state: InstallationState,
}

/// The files that show whether an installation was replaced. `None` for a file that does not exist.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct InstallationState(Vec<(PathBuf, Option<FileState>)>);

/// The inode, and the time of the last change in seconds and nanoseconds.
type FileState = (u64, i64, i64);

/// The Python interpreter that the first lines of a script name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Python {
    pub(crate) path: PathBuf,
    /// The rest of the line, which the kernel passes to the interpreter as one argument (execve(2)).
    pub(crate) option: Option<String>,
}

impl Installation {
    /// Finds the installation of a program, or of the `ansible-playbook` in the directories of `PATH`.
    pub(crate) fn find(named: Option<&Path>) -> Result<Self, PlaybookError> {
        let found = match named {
            Some(path) => path.to_owned(),
            None => on_path("ansible-playbook").ok_or(PlaybookError::NoAnsible)?,
        };
        let program = without_links(&found);
        let python = interpreter(&program, &search_path(&program));
        let files = [Some(&found), Some(&program), python.as_ref().map(|python| &python.path)];
        let state = InstallationState::read(files.into_iter().flatten());
        // The directory of the program may be a link, for example to a collection of dotfiles.
        let user_base = [&program, &found].into_iter().find_map(|program| user_base(program));
        let mut trees = trees(&program, python.as_ref());
        if let Some(base) = &user_base {
            // The directory is usually `~/.local`, which has private files too.
            trees.retain(|tree| tree != base);
            trees.push(program.clone());
            trees.extend(libs(base).filter_map(|lib| lib.canonicalize().ok()));
        }
        let named = named.map(Path::to_owned);
        Ok(Self { program, python, trees, user_base, named, state })
    }

    /// Finds the installation again if it was replaced, for example by an upgrade. `None` if it is unchanged, or if it
    /// is missing now.
    pub(crate) fn find_changed(&self) -> Option<Self> {
        if self.state == self.state.read_again() {
            return None;
        }
        Self::find(self.named.as_deref()).ok().filter(|found| found.program.exists())
    }
}

impl InstallationState {
    fn read<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        let state = |path: &PathBuf| {
            let found = fs::metadata(path).ok()?;
            Some((found.ino(), found.ctime(), found.ctime_nsec()))
        };
        Self(files.into_iter().map(|path| (path.clone(), state(path))).collect())
    }

    fn read_again(&self) -> Self {
        Self::read(self.0.iter().map(|(path, _)| path))
    }
}

/// Returns the directories in which a run of a program finds other programs: `PATH` of a playbook.
pub(crate) fn search_path(program: &Path) -> OsString {
    let mut path = program.parent().unwrap_or(Path::new("/usr/bin")).as_os_str().to_owned();
    path.push(":/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin");
    path
}

/// Returns the Python interpreter that the first lines of a script name. `None` if they name no Python. `path` is
/// where `env` looks for it.
fn interpreter(program: &Path, path: &OsStr) -> Option<Python> {
    let text = fs::read(program).ok()?;
    let mut lines =
        text.split(|&byte| byte == b'\n').map(|line| str::from_utf8(line).unwrap_or(""));
    let line = lines.next()?.strip_prefix("#!")?.trim();
    // If the path is too long for the kernel, pip and pipx let the shell start Python.
    let long = lines.next().and_then(|line| line.strip_prefix("'''exec' "));
    let (named, option) = match (line, long) {
        ("/bin/sh", Some(rest)) => (rest.split(" \"$0\"").next()?.trim_matches('"'), ""),
        _ => line.split_once([' ', '\t']).unwrap_or((line, "")),
    };
    let (path, option) = match named {
        "/usr/bin/env" => (in_dirs(path, option.trim())?, None),
        _ => (PathBuf::from(named), Some(option.trim())),
    };
    let name = path.file_name()?.to_str()?;
    let is_python = path.is_absolute() && name.starts_with("python");
    let option = option.filter(|option| !option.is_empty()).map(str::to_owned);
    is_python.then_some(Python { path, option })
}

/// Returns the directory above `bin` if it is one of pip's directories for one user, and Ansible is installed there.
fn user_base(program: &Path) -> Option<PathBuf> {
    let base = program.parent()?.parent()?;
    let has_ansible = libs(base).any(|lib| lib.join("site-packages/ansible").is_dir());
    // The system's Python finds its own packages by itself.
    (!is_python(base) && has_ansible && !is_system(base)).then(|| base.to_owned())
}

/// Returns the directories of Python's libraries in a tree.
fn libs(tree: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(tree.join("lib")).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"))
        .map(|entry| entry.path())
}

/// Returns whether a tree is an installation of Python or a virtual environment. Packages alone are neither.
fn is_python(tree: &Path) -> bool {
    tree.join("pyvenv.cfg").is_file() || libs(tree).any(|lib| lib.join("os.py").is_file())
}

/// Returns the directory trees in which Ansible and its Python are installed. Trees of the system are left
/// out, because every playbook may read the system's directories anyway.
fn trees(program: &Path, python: Option<&Python>) -> Vec<PathBuf> {
    // The parent of `bin` may be a user's home. The whole tree is granted only if the tree contains a Python
    // installation; otherwise only the program is granted.
    let tree = |program: &Path| {
        let tree = program.parent()?.parent()?;
        Some(if is_python(tree) { tree } else { program }.to_owned())
    };
    let python = python.map(|python| python.path.as_path());
    let real = python.and_then(|python| python.canonicalize().ok());
    let trees = [Some(program), python, real.as_deref()];
    let trees = trees.map(|program| program.and_then(tree));
    trees
        .into_iter()
        .flatten()
        .filter_map(|tree| tree.canonicalize().ok())
        .filter(|tree| !is_system(tree))
        .collect()
}

fn is_system(tree: &Path) -> bool {
    tree.starts_with("/usr") || tree == Path::new("/")
}

/// Returns the path of a program with the symbolic links in its directories resolved. The last component may
/// still be a link, because the program may depend on the name by which it is called. A link to a program of the
/// same name, as pipx creates it, is resolved too.
fn without_links(program: &Path) -> PathBuf {
    let target = program.canonicalize().ok();
    if let Some(target) = target.filter(|target| target.file_name() == program.file_name()) {
        return target;
    }
    let real = program.parent().and_then(|folder| folder.canonicalize().ok());
    match (real, program.file_name()) {
        (Some(folder), Some(name)) => folder.join(name),
        _ => program.to_owned(),
    }
}

/// Finds a program in the absolute directories of `PATH`.
fn on_path(program: &str) -> Option<PathBuf> {
    in_dirs(&std::env::var_os("PATH")?, program)
}

fn in_dirs(path: &OsStr, program: &str) -> Option<PathBuf> {
    std::env::split_paths(path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
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
        assert_eq!(interpreter(&program, OsStr::new("/nowhere:/usr/bin")), expected, "{line}");
    }

    #[test]
    fn the_first_line_names_the_python() {
        check_python("#!/usr/bin/python3", Some(("/usr/bin/python3", None)));
        check_python("#! /opt/bin/python3.12  -sP ", Some(("/opt/bin/python3.12", Some("-sP"))));
        check_python("#!/usr/bin/env python3", Some(("/usr/bin/python3", None)));
        check_python("#!/usr/bin/env no-such-python", None);
        check_python("#!/bin/sh", None);
        check_python("import sys", None);
    }

    #[test]
    fn a_path_that_is_too_long_for_the_first_line_is_in_the_second() {
        for path in ["/long/bin/python", "\"/with space/bin/python3\""] {
            let script = format!("#!/bin/sh\n'''exec' {path} \"$0\" \"$@\"\n' '''");
            check_python(&script, Some((path.trim_matches('"'), None)));
        }
        check_python("#!/bin/sh\nexec /opt/bin/ansible-playbook \"$@\"", None);
    }

    #[test]
    fn an_installation_that_comes_later_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().canonicalize().unwrap().join("ansible-playbook");
        let missing = Installation::find(Some(&program)).unwrap();
        assert!(missing.python.is_none() && missing.find_changed().is_none());
        fs::write(&program, "#!/usr/bin/python3\n").unwrap();
        let found = missing.find_changed().unwrap();
        assert!(found.python.is_some() && found.find_changed().is_none());
        fs::remove_file(&program).unwrap();
        assert!(found.find_changed().is_none(), "a missing program replaced the installation");
    }

    #[test]
    fn a_link_of_pipx_is_resolved() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().canonicalize().unwrap().join(name);
        for dir in ["bin", "venv/bin"] {
            fs::create_dir_all(at(dir)).unwrap();
        }
        fs::write(at("venv/bin/ansible-playbook"), "").unwrap();
        fs::write(at("venv/bin/ansible"), "").unwrap();
        for (link, target) in [("ansible-playbook", "ansible-playbook"), ("other", "ansible")] {
            std::os::unix::fs::symlink(at("venv/bin").join(target), at("bin").join(link)).unwrap();
        }
        let resolved = without_links(&at("bin/ansible-playbook"));
        assert_eq!(resolved, at("venv/bin/ansible-playbook"));
        assert_eq!(without_links(&at("bin/other")), at("bin/other"));
    }
}
