//! The directory of the playbooks, which also contains the inventory and Ansible's configuration.
//!
//! This module finds the files in the directory. Other files can only be reached by links to linked directories. A file
//! name comes from the daemon's list of tasks or from a manifest. No part of a message is ever part of a file name.

use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use loopabull_model::Task;

use crate::error::StartError;
use crate::linked_dir::LinkedDir;

/// The directory of the playbooks, which was opened.
#[derive(Debug)]
pub struct PlaybookDir(LinkedDir);

impl PlaybookDir {
    /// Makes the directory of playbooks of an opened directory.
    pub fn new(dir: LinkedDir) -> Self {
        Self(dir)
    }

    /// Returns the directories outside to which links may lead.
    pub(crate) fn linked(&self) -> &[PathBuf] {
        self.0.linked()
    }

    /// Returns the canonical path of the directory.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Returns the path of a task's playbook, which must be a file.
    pub(crate) fn playbook(&self, task: &Task) -> Result<PathBuf, StartError> {
        let name = format!("{}.yml", task.name);
        match self.0.open_file(&name).and_then(|file| file.metadata()) {
            Ok(metadata) if metadata.is_file() => Ok(self.path().join(name)),
            Ok(_) => Err(StartError::NotAFile { name }),
            Err(source) => Err(StartError::Open { name, source }),
        }
    }

    /// Returns the inventory that a manifest names: a comma-separated list of hosts, or the path of a file.
    /// If the manifest names none, returns the path of `inventory` in the directory, if that exists.
    pub(crate) fn inventory(&self, named: Option<&str>) -> Result<Option<PathBuf>, StartError> {
        match named {
            Some(hosts) if hosts.contains(',') => Ok(Some(hosts.into())),
            Some(file) => self.named(file).map(Some),
            None => self.find("inventory"),
        }
    }

    /// Returns the path of the Ansible configuration file that a manifest names. If the manifest names none,
    /// returns the path of `ansible.cfg` in the directory, if that exists.
    pub(crate) fn ansible_config(
        &self,
        named: Option<&str>,
    ) -> Result<Option<PathBuf>, StartError> {
        match named {
            Some(file) => self.named(file).map(Some),
            None => self.find("ansible.cfg"),
        }
    }

    /// Returns whether a playbook seems to use `become` on this machine, where the sandbox forbids new
    /// privileges. The answer is a guess from words in the text of the playbook, and only serves to warn
    /// the operator.
    pub fn becomes_here(&self, task: &Task) -> bool {
        let mut text = String::new();
        let file = self.0.open_file(format!("{}.yml", task.name));
        if file.and_then(|mut file| file.read_to_string(&mut text)).is_err() {
            return false;
        }
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
    fn named(&self, name: &str) -> Result<PathBuf, StartError> {
        let is_plain =
            Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        if !is_plain {
            return Err(StartError::Outside { name: name.to_owned() });
        }
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        self.find(name)?
            .ok_or_else(|| StartError::Missing { name: name.to_owned(), source: missing() })
    }

    /// Returns the path of a file in the directory, if it exists. A file that cannot be used is an error: without it, a
    /// playbook would run for other hosts or with other settings.
    fn find(&self, name: &str) -> Result<Option<PathBuf>, StartError> {
        match self.0.find(name) {
            Ok(found) => Ok(found.map(|_| self.path().join(name))),
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
        let dir = PlaybookDir::new(LinkedDir::open(folder.path(), &[]).unwrap());
        for name in ["../x", "/etc/hosts", "a/../../x"] {
            let error = dir.inventory(Some(name)).unwrap_err().to_string();
            assert_eq!(error, format!("`{name}` is not inside the playbooks directory"));
        }
        let error = dir.ansible_config(Some("x.cfg")).unwrap_err().to_string();
        assert_eq!(error, "cannot use `x.cfg` in the playbooks directory");
        assert_eq!(dir.inventory(Some("a,b")).unwrap(), Some("a,b".into()));
        assert_eq!(dir.inventory(None).unwrap(), None);
    }

    #[test]
    fn a_link_is_followed_or_an_error_and_never_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["playbooks", "release", "other"] {
            std::fs::create_dir(at(name)).unwrap();
            std::fs::write(at(name).join("hosts"), "a").unwrap();
        }
        let open =
            || PlaybookDir::new(LinkedDir::open(&at("playbooks"), &[at("release")]).unwrap());
        let link = |to: PathBuf| {
            drop(std::fs::remove_file(at("playbooks/inventory")));
            std::os::unix::fs::symlink(to, at("playbooks/inventory")).unwrap();
        };
        for to in [at("release/hosts"), "hosts".into(), at("release")] {
            link(to);
            let found = open().inventory(None).unwrap();
            assert_eq!(found, Some(open().path().join("inventory")));
        }
        for to in [at("other/hosts"), at("release/none")] {
            link(to);
            let error = open().inventory(None).unwrap_err().to_string();
            assert_eq!(error, "cannot use `inventory` in the playbooks directory");
        }
    }
}
