//! Discovery finds the tasks in the directories of components and playbooks, and reads their
//! manifests.
//!
//! Discovery does not load the tasks; `catalog` loads them. Discovery opens each directory once,
//! with cap-std, and opens all files of tasks relative to it. No file name contains text from a
//! message. A problem with one file becomes a finding for the operator, and does not affect other
//! tasks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use loopabull_launcher::is_shortage;
use loopabull_model::{AnsibleOptions, Task, TaskKind, TaskName, chain};
use loopabull_wasm::MAX_COMPONENT;

use crate::config::Config;
use crate::tasks::files::{self, FileError};
use crate::tasks::grants;
use crate::tasks::stamp::Stamp;

/// The tasks in the directories. No component is compiled yet.
#[derive(Debug, Default)]
pub struct Discovery {
    pub tasks: Vec<Task>,
    pub findings: Vec<Finding>,
    /// Tasks that must not run, and the reasons.
    pub refused: BTreeMap<TaskName, String>,
    /// Directories that cannot be read, and the reasons. The tasks in them are unknown.
    pub unreadable: Vec<(PathBuf, String)>,
    stamps: BTreeMap<TaskName, Stamp>,
    components: Option<Dir>,
}

/// A note or a problem about a file or a task, for the operator.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    pub severity: Severity,
    /// File or task that the finding is about.
    pub file: PathBuf,
    pub text: String,
}

/// The severity of a finding.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Severity {
    /// The finding has no effect on tasks.
    Note,
    /// A task or its current version cannot be loaded.
    Problem,
}

impl Discovery {
    /// Discovers the components and playbooks in the directories of the configuration.
    pub fn read(config: &Config) -> Self {
        let mut discovery = Self::default();
        let mut tasks = BTreeMap::new();
        discovery.read_folder(&config.playbooks, "yml", TaskKind::Playbook, &mut tasks);
        discovery.components =
            discovery.read_folder(&config.tasks, "wasm", TaskKind::Component, &mut tasks);
        let mut tasks: Vec<_> = tasks.into_values().collect();
        for task in &mut tasks {
            task.manifest.apply_ceiling(task.kind, &config.ceiling);
            if task.patterns().is_empty() {
                let text = "the name is not a topic, and no manifest sets `topics`".to_owned();
                discovery.problem(PathBuf::from(task.name.as_str()), text);
            }
            let objections = objections(config, task);
            if !objections.is_empty() {
                let reason = || objections.join("; ");
                discovery.refused.entry(task.name.clone()).or_insert_with(reason);
            }
        }
        discovery.tasks = tasks;
        discovery
    }

    /// Reads the file of a component.
    pub(super) fn component(&self, name: &TaskName) -> Result<Vec<u8>, FileError> {
        let dir = self.components.as_ref().ok_or(FileError::NoDirectory)?;
        files::read(dir, &format!("{name}.wasm"), MAX_COMPONENT)
    }

    /// Returns the stamp of a task's files.
    pub fn stamp(&self, name: &TaskName) -> Option<&Stamp> {
        self.stamps.get(name)
    }

    /// Returns whether the files and findings are the same as in another discovery.
    pub fn is_same(&self, other: &Self) -> bool {
        self.stamps == other.stamps && self.findings == other.findings
    }

    fn read_folder(
        &mut self,
        folder: &Path,
        extension: &str,
        kind: TaskKind,
        tasks: &mut BTreeMap<TaskName, Task>,
    ) -> Option<Dir> {
        let dir = match Dir::open_ambient_dir(folder, ambient_authority()) {
            Ok(dir) => dir,
            Err(error) => {
                let text = format!("cannot open the directory: {error}");
                self.unreadable.push((folder.to_owned(), text.clone()));
                self.note(folder.to_owned(), text);
                return None;
            }
        };
        for stem in self.stems(&dir, folder, extension) {
            let file = folder.join(format!("{stem}.{extension}"));
            let name = match TaskName::try_from(stem) {
                Ok(name) => name,
                Err(error) => {
                    self.problem(file, error.to_string());
                    continue;
                }
            };
            // The stamp is read before the manifest, so that the next discovery detects a change in
            // between.
            let mut stamp = Stamp::read(&dir, &name, extension);
            let (manifest, error) = files::read_manifest(&dir, &name);
            if let Some(error) = error {
                if error.is_shortage() {
                    // Nothing is known about the task, so the whole directory counts as unreadable.
                    self.unreadable.push((folder.to_owned(), chain(&error)));
                }
                self.refused.insert(name.clone(), chain(error));
            }
            stamp.add_referenced_files(&manifest);
            self.stamps.insert(name.clone(), stamp);
            let task = Task { name: name.clone(), kind, manifest };
            if tasks.insert(name.clone(), task).is_some() {
                let text = format!(
                    "playbook `{name}.yml` is ignored, because a component has the same name"
                );
                self.note(file, text);
            }
        }
        Some(dir)
    }

    /// Returns the names of the regular files with this extension. The names are sorted and do not
    /// contain the extension. Adds a note for each manifest that has no such file.
    fn stems(&mut self, dir: &Dir, folder: &Path, extension: &str) -> Vec<String> {
        let mut stems = Vec::new();
        let mut manifests = Vec::new();
        let entries = match dir.entries() {
            Ok(entries) => entries,
            Err(error) => {
                let text = format!("cannot list the directory: {error}");
                self.unreadable.push((folder.to_owned(), text.clone()));
                self.problem(folder.to_owned(), text);
                return stems;
            }
        };
        for name in entries.flatten().map(|entry| entry.file_name()) {
            let Some((stem, found)) = name.to_str().and_then(|name| name.rsplit_once('.')) else {
                continue;
            };
            let metadata = dir.metadata(&name);
            if let Err(error) = &metadata
                && is_shortage(error)
            {
                // Nothing is known about the file, so the whole directory counts as unreadable.
                self.unreadable
                    .push((folder.to_owned(), format!("cannot look at a file: {error}")));
                return Vec::new();
            }
            // cap-std refuses links that lead out of the directory, so `metadata` fails for them.
            if found == extension && metadata.is_ok_and(|metadata| metadata.is_file()) {
                stems.push(stem.to_owned());
            } else if found == extension {
                self.problem(folder.join(&name), "not a regular file in this directory".to_owned());
            } else if found == "yaml" && extension == "yml" {
                self.note(
                    folder.join(&name),
                    "ignored, because playbooks must have the extension `.yml`".to_owned(),
                );
            } else if found == "toml" && stem != "Cargo" {
                manifests.push(stem.to_owned());
            }
        }
        stems.sort();
        manifests.sort();
        for stem in manifests.into_iter().filter(|stem| stems.binary_search(stem).is_err()) {
            let text = format!("ignored, because `{stem}.{extension}` does not exist");
            self.note(folder.join(format!("{stem}.toml")), text);
        }
        stems
    }

    fn note(&mut self, file: PathBuf, text: String) {
        self.findings.push(Finding { severity: Severity::Note, file, text });
    }

    fn problem(&mut self, file: PathBuf, text: String) {
        self.findings.push(Finding { severity: Severity::Problem, file, text });
    }
}

/// Returns the reasons why a task must not run: its manifest exceeds the ceiling, grants a path
/// that must not be granted, or has settings for the other kind of task.
fn objections(config: &Config, task: &Task) -> Vec<String> {
    let manifest = &task.manifest;
    let mut objections = config.ceiling.excess(manifest);
    objections.extend(manifest.grants.misplaced(task.kind));
    objections.extend(grants::unfit(config, manifest));
    match task.kind {
        TaskKind::Playbook => {
            let unsuitable = loopabull_playbook::objections(manifest);
            objections.extend(unsuitable.iter().map(ToString::to_string));
        }
        TaskKind::Component if manifest.ansible != AnsibleOptions::default() => {
            objections.push("`[ansible]` is for playbooks".to_owned());
        }
        TaskKind::Component => (),
    }
    objections
}

#[cfg(test)]
mod tests;
