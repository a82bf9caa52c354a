//! Discovery finds the tasks in the directories of components and playbooks, and reads their
//! manifests.
//!
//! Discovery does not load the tasks; `catalog` loads them. Discovery opens each directory once,
//! with cap-std, and opens all files of tasks relative to it. No file name contains text from a
//! message. A problem with one file becomes a finding for the operator, and does not affect other
//! tasks.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_std::fs::Dir;
use loopabull_launcher::is_shortage;
use loopabull_model::{AnsibleOptions, Task, TaskKind, TaskName, chain};
use loopabull_playbook::{LinkedDir, PlaybookDir};
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
    components: Option<LinkedDir>,
    playbooks: Option<Arc<PlaybookDir>>,
}

/// Directories beside playbooks whose files are not playbooks (Ansible, "Sample directory layout").
const ANSIBLE_DIRS: [&str; 16] = [
    "action_plugins",
    "callback_plugins",
    "collections",
    "files",
    "filter_plugins",
    "group_vars",
    "handlers",
    "host_vars",
    "inventory",
    "library",
    "lookup_plugins",
    "module_utils",
    "roles",
    "tasks",
    "templates",
    "vars",
];
/// Maximum size in bytes of a file that is searched for plays.
const MAX_SEARCHED: u64 = 1 << 20;
/// Maximum number of entries of a subdirectory that are searched for plays.
const MAX_ENTRIES: usize = 100;

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
    /// Discovers the components and playbooks in the directories of the configuration. A YAML file without
    /// a play is no playbook, unless it was one in `previous`: then it is a broken playbook.
    pub fn read(config: &Config, previous: Option<&Self>) -> Self {
        let mut discovery = Self::default();
        let mut tasks = BTreeMap::new();
        let folder = &config.playbooks;
        match LinkedDir::open(folder, &config.linked_dirs) {
            Ok(dir) => {
                discovery.read_folder(&dir, folder, TaskKind::Playbook, previous, &mut tasks);
                discovery.note_subdirectories(dir.dir(), folder);
                match dir.try_clone() {
                    Ok(dir) => discovery.playbooks = Some(Arc::new(PlaybookDir::new(dir))),
                    Err(error) => discovery.note_unreadable(folder, &error),
                }
            }
            Err(error) => discovery.note_unreadable(folder, &error),
        }
        let folder = &config.tasks;
        match LinkedDir::open(folder, &config.linked_dirs) {
            Ok(dir) => {
                discovery.read_folder(&dir, folder, TaskKind::Component, previous, &mut tasks);
                discovery.components = Some(dir);
            }
            Err(error) => discovery.note_unreadable(folder, &error),
        }
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

    /// Returns the directory whose tasks are not known, with the reason. Messages for them would be dropped, or fail. Only
    /// a directory that has its default name may be missing: most hosts have one kind of task.
    pub fn unknown_dir(&self) -> Option<&(PathBuf, String)> {
        let defaults = Config::default();
        self.unreadable.iter().find(|(folder, _)| {
            let is_default = *folder == defaults.tasks || *folder == defaults.playbooks;
            !is_default || folder.symlink_metadata().is_ok()
        })
    }

    /// Reads the file of a component.
    pub(super) fn component(&self, name: &TaskName) -> Result<Vec<u8>, FileError> {
        let dir = self.components.as_ref().ok_or(FileError::NoDirectory)?;
        files::read(dir, &format!("{name}.wasm"), MAX_COMPONENT)
    }

    /// Returns the opened directory of the playbooks.
    pub(super) fn playbook_dir(&self) -> Option<Arc<PlaybookDir>> {
        self.playbooks.clone()
    }

    /// Returns the stamp of a task's files.
    pub fn stamp(&self, name: &TaskName) -> Option<&Stamp> {
        self.stamps.get(name)
    }

    /// Returns whether the files and findings are the same as in another discovery.
    pub fn is_same(&self, other: &Self) -> bool {
        self.stamps == other.stamps && self.findings == other.findings
    }

    fn note_unreadable(&mut self, folder: &Path, error: &io::Error) {
        let text = format!("cannot open the directory: {error}");
        self.unreadable.push((folder.to_owned(), text.clone()));
        self.note(folder.to_owned(), text);
    }

    fn read_folder(
        &mut self,
        dir: &LinkedDir,
        folder: &Path,
        kind: TaskKind,
        previous: Option<&Self>,
        tasks: &mut BTreeMap<TaskName, Task>,
    ) {
        let extension = match kind {
            TaskKind::Component => "wasm",
            TaskKind::Playbook => "yml",
        };
        for stem in self.stems(dir, folder, extension) {
            let file = folder.join(format!("{stem}.{extension}"));
            let name = match TaskName::try_from(stem) {
                Ok(name) => name,
                Err(error) => {
                    self.problem(file, error.to_string());
                    continue;
                }
            };
            let was_task = previous.is_some_and(|previous| previous.stamps.contains_key(&name));
            if kind == TaskKind::Playbook && !was_task && is_no_playbook(dir, &name) {
                let text = "ignored, because it has no play: no line begins with `hosts:` or \
                            `import_playbook:`";
                self.note(file, text.to_owned());
                continue;
            }
            // The stamp is read before the manifest, so that the next discovery detects a change in
            // between.
            let mut stamp = Stamp::read(dir, &name, extension);
            let (manifest, error) = files::read_manifest(dir, &name);
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
    }

    /// Adds a note for each subdirectory that contains playbooks.
    fn note_subdirectories(&mut self, dir: &Dir, folder: &Path) {
        let Ok(entries) = dir.entries() else { return };
        let mut found = Vec::new();
        for name in entries.flatten().map(|entry| entry.file_name()) {
            let is_known = ANSIBLE_DIRS.iter().any(|known| name == *known);
            if is_known || !dir.metadata(&name).is_ok_and(|found| found.is_dir()) {
                continue;
            }
            let Ok(below) = LinkedDir::open(&folder.join(&name), &[]) else { continue };
            let files = below.dir().entries().into_iter().flatten().flatten().take(MAX_ENTRIES);
            let mut files = files.map(|entry| entry.file_name());
            let is_playbook = |file: &OsString| {
                let file = file.to_str().filter(|file| file.ends_with(".yml"));
                file.is_some_and(|file| {
                    has_play(files::read(&below, file, MAX_SEARCHED)) == Some(true)
                })
            };
            if files.any(|file| is_playbook(&file)) {
                found.push(folder.join(&name));
            }
        }
        found.sort();
        for path in found {
            let text = "its playbooks are ignored: only those directly in the directory are tasks";
            self.note(path, text.to_owned());
        }
    }

    /// Returns the names of the regular files with this extension. The names are sorted and do not
    /// contain the extension. Adds a note for each manifest that has no such file.
    fn stems(&mut self, dir: &LinkedDir, folder: &Path, extension: &str) -> Vec<String> {
        let mut stems = Vec::new();
        let mut manifests = Vec::new();
        let entries = match dir.dir().entries() {
            Ok(entries) => entries,
            Err(error) => {
                let text = format!("cannot list the directory: {error}");
                self.unreadable.push((folder.to_owned(), text.clone()));
                self.problem(folder.to_owned(), text);
                return stems;
            }
        };
        for name in entries.flatten().map(|entry| entry.file_name()) {
            let Some(text) = name.to_str() else {
                let ending = format!(".{extension}");
                if name.as_encoded_bytes().ends_with(ending.as_bytes()) {
                    self.problem(folder.join(&name), "its name is not UTF-8".to_owned());
                }
                continue;
            };
            let Some((stem, found)) = text.rsplit_once('.') else { continue };
            let metadata = dir.metadata(&name);
            if let Err(error) = &metadata
                && is_shortage(error)
            {
                // Nothing is known about the file, so the whole directory counts as unreadable.
                self.unreadable
                    .push((folder.to_owned(), format!("cannot look at a file: {error}")));
                return Vec::new();
            }
            // For a link that leads elsewhere, `metadata` fails.
            if found == extension && metadata.as_ref().is_ok_and(|metadata| metadata.is_file()) {
                stems.push(stem.to_owned());
            } else if found == extension {
                let text = match (dir.dir().read_link_contents(&name), metadata) {
                    (Ok(to), Err(error)) => format!(
                        "cannot follow the link to `{}`, which must lead to a file in this directory or in \
                         one of `linked_dirs`: {error}",
                        to.display()
                    ),
                    (_, Err(error)) => format!("cannot look at the file: {error}"),
                    (_, Ok(_)) => "not a regular file".to_owned(),
                };
                self.problem(folder.join(&name), text);
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

/// Returns whether a YAML file beside the playbooks has no play, for example `requirements.yml`. An empty file, one
/// with a manifest, or one whose name is a topic of several words is meant as a playbook.
fn is_no_playbook(dir: &LinkedDir, name: &TaskName) -> bool {
    let is_meant = name.as_str().contains('.') || dir.metadata(format!("{name}.toml")).is_ok();
    !is_meant && has_play(files::read(dir, &format!("{name}.yml"), MAX_SEARCHED)) == Some(false)
}

/// Returns whether a YAML file seems to have a play. Returns `None` if the file is empty or cannot be read. The
/// answer is a guess from words in the text: Ansible decides later.
fn has_play(file: Result<Vec<u8>, FileError>) -> Option<bool> {
    let bytes = file.ok().filter(|bytes| !bytes.is_empty())?;
    let text = String::from_utf8_lossy(&bytes);
    let is_key = |line: &str| {
        let line =
            line.trim_start_matches(|c: char| c.is_whitespace() || "\u{feff}-{[\"'".contains(c));
        let key = line.split([':', '"', '\'', ' ', '\t']).next().unwrap_or_default();
        matches!(key.rsplit('.').next(), Some("hosts" | "import_playbook"))
    };
    // Nobody knows what an encrypted file contains.
    Some(text.starts_with("$ANSIBLE_VAULT") || text.split(['\n', '\r', ',']).any(is_key))
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
