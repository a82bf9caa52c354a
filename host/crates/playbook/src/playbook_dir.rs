//! The directory of the playbooks, which also contains the inventory and Ansible's configuration.
//!
//! This module finds the files in the directory. Files outside of it cannot be opened. The directory is opened
//! when the playbooks are loaded. If its path then leads to another directory, for example because it is a link
//! that was switched, the opened one stays in use until the next load. A file name comes from the daemon's list of tasks or from a manifest. No part of a message is
//! ever part of a file name.

use std::path::{Component, Path, PathBuf};

use cap_std::fs::Dir;
use loopabull_model::Task;

use crate::error::StartError;

/// The directory of the playbooks, which was opened.
#[derive(Debug)]
pub struct PlaybookDir {
    dir: Dir,
    path: PathBuf,
    /// Directories outside to which links may lead. Every playbook may read them.
    linked: Vec<PathBuf>,
}

impl PlaybookDir {
    /// Makes the directory of an opened directory, its path without links, and the directories to which links in it
    /// may lead.
    pub fn new(dir: Dir, path: PathBuf, linked: Vec<PathBuf>) -> Self {
        Self { dir, path, linked }
    }

    /// Returns the directories outside to which links may lead.
    pub(crate) fn linked(&self) -> &[PathBuf] {
        &self.linked
    }

    /// Returns the canonical path of the directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of a task's playbook, which must be a file.
    pub(crate) fn playbook(&self, task: &Task) -> Result<PathBuf, StartError> {
        let name = format!("{}.yml", task.name);
        match self.dir.open(&name).and_then(|file| file.metadata()) {
            Ok(metadata) if metadata.is_file() => Ok(self.path.join(name)),
            Ok(_) => Err(StartError::NotAFile { name }),
            Err(_) if self.is_linked_file(&name) => Ok(self.path.join(name)),
            Err(source) => Err(StartError::Open { name, source }),
        }
    }

    /// Returns whether a file is a link that leads to a file in one of the linked directories.
    fn is_linked_file(&self, name: &str) -> bool {
        let target = self.path.join(name).canonicalize();
        target.is_ok_and(|target| {
            target.is_file() && self.linked.iter().any(|linked| target.starts_with(linked))
        })
    }

    /// Returns the inventory that a manifest names: a comma-separated list of hosts, or the path of a file.
    /// If the manifest names none, returns the path of `inventory` in the directory, if that exists.
    pub(crate) fn inventory(&self, named: Option<&str>) -> Result<Option<PathBuf>, StartError> {
        match named {
            Some(hosts) if hosts.contains(',') => Ok(Some(hosts.into())),
            Some(file) => self.find(file).map(Some),
            None => Ok(self.dir.exists("inventory").then(|| self.path.join("inventory"))),
        }
    }

    /// Returns the path of the Ansible configuration file that a manifest names. If the manifest names none,
    /// returns the path of `ansible.cfg` in the directory, if that exists.
    pub(crate) fn ansible_config(
        &self,
        named: Option<&str>,
    ) -> Result<Option<PathBuf>, StartError> {
        match named {
            Some(file) => self.find(file).map(Some),
            None => Ok(self.dir.is_file("ansible.cfg").then(|| self.path.join("ansible.cfg"))),
        }
    }

    /// Returns whether a playbook seems to use `become` on this machine, where the sandbox forbids new
    /// privileges. The answer is a guess from words in the text of the playbook, and only serves to warn
    /// the operator.
    pub fn becomes_here(&self, task: &Task) -> bool {
        let text = self.dir.read_to_string(format!("{}.yml", task.name)).unwrap_or_default();
        let has = |key: &str, values: &[&str]| {
            let lines = text.lines().map(|line| line.trim_start_matches(['-', ' ']));
            let found = lines.filter_map(|line| line.split_once(':'));
            let value = |text: &str| text.split(" #").next().unwrap_or_default().trim().to_owned();
            let mut found = found.filter(|(name, _)| *name == key).map(|(_, text)| value(text));
            found.any(|found| values.contains(&found.as_str()))
        };
        has("become", &["true", "yes", "True"])
            && (has("connection", &["local"]) || has("hosts", &["localhost", "127.0.0.1"]))
    }

    /// Returns the path of a file in the directory. The file must exist.
    fn find(&self, name: &str) -> Result<PathBuf, StartError> {
        let is_plain =
            Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        if !is_plain {
            return Err(StartError::Outside { name: name.to_owned() });
        }
        match self.dir.metadata(name) {
            Ok(_) => Ok(self.path.join(name)),
            Err(source) => Err(StartError::Missing { name: name.to_owned(), source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_outside_the_directory_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let opened = Dir::open_ambient_dir(folder.path(), cap_std::ambient_authority()).unwrap();
        let dir = PlaybookDir::new(opened, folder.path().to_owned(), Vec::new());
        for name in ["../x", "/etc/hosts", "a/../../x"] {
            let error = dir.inventory(Some(name)).unwrap_err().to_string();
            assert_eq!(error, format!("`{name}` is not inside the playbooks directory"));
        }
        let error = dir.ansible_config(Some("x.cfg")).unwrap_err().to_string();
        assert_eq!(error, "cannot find `x.cfg` in the playbooks directory");
        assert_eq!(dir.inventory(Some("a,b")).unwrap(), Some("a,b".into()));
        assert_eq!(dir.inventory(None).unwrap(), None);
    }
}
