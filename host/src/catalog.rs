//! The catalog: which tasks there are.
//!
//! Owns the reading of the two directories. File names come from our own listing, beneath a
//! directory that was opened once by cap-std; nothing that a message contains is ever part of one.
//! What is wrong with one task is a finding and does not stop the others.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use loopabull_model::{Manifest, Routes, Task, TaskKind, TaskName};
use loopabull_wasm::{Component, ComponentRunner};

use crate::config::Config;

/// The largest component that is read, in bytes.
const MAX_COMPONENT: u64 = 64 << 20;
/// The largest manifest that is read, in bytes.
const MAX_MANIFEST: u64 = 64 << 10;

/// The tasks as the directories name them; nothing is compiled yet.
#[derive(Debug, Default)]
pub struct Listing {
    pub tasks: Vec<Task>,
    pub findings: Vec<Finding>,
    components: Option<Dir>,
}

/// The tasks, ready to run.
#[derive(Default)]
pub struct Catalog {
    pub routes: Arc<Routes>,
    pub components: BTreeMap<TaskName, Component>,
    pub findings: Vec<Finding>,
}

/// Something that an operator should know about a task or a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    pub severity: Severity,
    /// The file that it is about.
    pub file: PathBuf,
    pub text: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Severity {
    /// Nothing is broken.
    Note,
    /// A task is not loaded.
    Problem,
}

impl Listing {
    /// Lists the components and playbooks of the configuration.
    pub fn read(config: &Config) -> Self {
        let mut listing = Self::default();
        let mut tasks = BTreeMap::new();
        listing.read_folder(&config.playbooks, "yml", TaskKind::Playbook, &mut tasks);
        listing.components =
            listing.read_folder(&config.tasks, "wasm", TaskKind::Component, &mut tasks);
        listing.tasks = tasks.into_values().collect();
        for task in &listing.tasks {
            if task.patterns().is_empty() {
                listing.findings.push(Finding {
                    severity: Severity::Problem,
                    file: PathBuf::from(task.name.as_str()),
                    text: "its name is not a topic and no manifest names `topics`".to_owned(),
                });
            }
        }
        listing
    }

    fn read_folder(
        &mut self,
        folder: &Path,
        ending: &str,
        kind: TaskKind,
        tasks: &mut BTreeMap<TaskName, Task>,
    ) -> Option<Dir> {
        let dir = match Dir::open_ambient_dir(folder, ambient_authority()) {
            Ok(dir) => dir,
            Err(error) => {
                self.note(folder.to_owned(), format!("cannot open the directory: {error}"));
                return None;
            }
        };
        for stem in self.stems(&dir, folder, ending) {
            let file = folder.join(format!("{stem}.{ending}"));
            let name = match TaskName::try_from(stem) {
                Ok(name) => name,
                Err(error) => {
                    self.problem(file, error.to_string());
                    continue;
                }
            };
            match read_manifest(&dir, &name) {
                Ok(manifest) => {
                    let task = Task { name: name.clone(), kind, manifest };
                    if tasks.insert(name.clone(), task).is_some() {
                        self.note(
                            file,
                            format!("the component is the task, playbook `{name}.yml` is not run"),
                        );
                    }
                }
                Err(reason) => self.problem(folder.join(format!("{name}.toml")), reason),
            }
        }
        Some(dir)
    }

    /// Returns the names of the regular files with this ending, without it, in order. Notes the
    /// manifests that stand alone.
    fn stems(&mut self, dir: &Dir, folder: &Path, ending: &str) -> Vec<String> {
        let mut stems = Vec::new();
        let mut manifests = Vec::new();
        let entries = match dir.entries() {
            Ok(entries) => entries,
            Err(error) => {
                self.problem(folder.to_owned(), format!("cannot list the directory: {error}"));
                return stems;
            }
        };
        for name in entries.flatten().map(|entry| entry.file_name()) {
            let Some((stem, found)) = name.to_str().and_then(|name| name.rsplit_once('.')) else {
                continue;
            };
            // Follows a link only if it stays beneath the directory: cap-std refuses the others.
            if found == ending && dir.metadata(&name).is_ok_and(|metadata| metadata.is_file()) {
                stems.push(stem.to_owned());
            } else if found == ending {
                self.problem(folder.join(&name), "not a file of this directory".to_owned());
            } else if found == "yaml" && ending == "yml" {
                self.note(folder.join(&name), "not a task: playbooks end in `.yml`".to_owned());
            } else if found == "toml" && stem != "Cargo" {
                manifests.push(stem.to_owned());
            }
        }
        stems.sort();
        manifests.sort();
        for stem in manifests.into_iter().filter(|stem| stems.binary_search(stem).is_err()) {
            let text = format!("a manifest without `{stem}.{ending}`");
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

impl Catalog {
    /// Compiles the components of a listing and builds the table of routes.
    pub fn load(listing: Listing, runner: &ComponentRunner) -> Self {
        let Listing { tasks, findings, components: dir } = listing;
        let mut catalog = Self { findings, ..Self::default() };
        let mut loaded = Vec::new();
        for task in tasks {
            match (task.kind, &dir) {
                (TaskKind::Component, Some(dir)) => match compile(dir, &task.name, runner) {
                    Ok(component) => {
                        catalog.components.insert(task.name.clone(), component);
                        loaded.push(task);
                    }
                    Err(text) => catalog.findings.push(Finding {
                        severity: Severity::Problem,
                        file: PathBuf::from(format!("{}.wasm", task.name)),
                        text,
                    }),
                },
                _ => loaded.push(task),
            }
        }
        catalog.routes = Arc::new(Routes::build(loaded));
        catalog
    }
}

fn compile(dir: &Dir, name: &TaskName, runner: &ComponentRunner) -> Result<Component, String> {
    let bytes = read(dir, &format!("{name}.wasm"), MAX_COMPONENT)?;
    runner.load(&bytes).map_err(|error| error.to_string())
}

fn read_manifest(dir: &Dir, name: &TaskName) -> Result<Manifest, String> {
    let file = format!("{name}.toml");
    if !dir.try_exists(&file).map_err(|error| format!("cannot be opened: {error}"))? {
        return Ok(Manifest::default());
    }
    let text = String::from_utf8(read(dir, &file, MAX_MANIFEST)?)
        .map_err(|_| "it is not UTF-8".to_owned())?;
    Manifest::parse(&text).map_err(|error| error.to_string())
}

fn read(dir: &Dir, file: &str, limit: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    dir.open(file)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > limit {
        return Err(format!("it has more than {limit} bytes"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folders(tempfile::TempDir);

    impl Folders {
        fn with(files: &[(&str, &str)]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for name in ["tasks", "playbooks"] {
                std::fs::create_dir(folder.path().join(name)).unwrap();
            }
            for (name, text) in files {
                std::fs::write(folder.path().join(name), text).unwrap();
            }
            Self(folder)
        }

        fn listing(&self) -> Listing {
            let folder = |name| self.0.path().join(name);
            Listing::read(&Config {
                tasks: folder("tasks"),
                playbooks: folder("playbooks"),
                ..Config::default()
            })
        }
    }

    fn check(files: &[(&str, &str)], tasks: &[(&str, TaskKind)], findings: &[&str]) {
        let listing = Folders::with(files).listing();
        let found: Vec<_> = listing.tasks.iter().map(|t| (t.name.as_str(), t.kind)).collect();
        assert_eq!(found, tasks);
        let texts: Vec<_> = listing.findings.iter().map(|finding| finding.text.as_str()).collect();
        assert_eq!(texts, findings);
    }

    #[test]
    fn files_are_tasks_by_their_ending() {
        check(
            &[("tasks/a.wasm", ""), ("playbooks/b.c.yml", ""), ("playbooks/ansible.cfg", "")],
            &[("a", TaskKind::Component), ("b.c", TaskKind::Playbook)],
            &[],
        );
    }

    #[test]
    fn of_two_of_one_name_the_component_is_the_task() {
        check(
            &[("tasks/a.wasm", ""), ("playbooks/a.yml", "")],
            &[("a", TaskKind::Component)],
            &["the component is the task, playbook `a.yml` is not run"],
        );
    }

    #[test]
    fn a_playbook_with_another_ending_is_noted() {
        check(&[("playbooks/a.yaml", "")], &[], &["not a task: playbooks end in `.yml`"]);
    }

    #[test]
    fn a_manifest_alone_is_noted() {
        check(
            &[("tasks/a.toml", ""), ("tasks/Cargo.toml", "")],
            &[],
            &["a manifest without `a.wasm`"],
        );
    }

    #[test]
    fn a_broken_manifest_keeps_only_its_own_task_out() {
        let listing = Folders::with(&[
            ("tasks/a.wasm", ""),
            ("tasks/a.toml", "topic = 'x'"),
            ("tasks/b.wasm", ""),
        ])
        .listing();
        assert_eq!(listing.tasks.len(), 1);
        assert_eq!(listing.findings[0].severity, Severity::Problem);
        assert!(listing.findings[0].text.contains("unknown field `topic`"));
    }

    #[test]
    fn a_link_out_of_the_directory_is_no_task() {
        let folders = Folders::with(&[("outside.yml", "")]);
        let playbooks = folders.0.path().join("playbooks");
        std::os::unix::fs::symlink("../outside.yml", playbooks.join("a.yml")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", playbooks.join("b.yml")).unwrap();
        let listing = folders.listing();
        assert_eq!(listing.tasks, []);
        assert_eq!(listing.findings.len(), 2);
    }

    #[test]
    fn a_component_that_does_not_compile_keeps_only_itself_out() {
        let folders = Folders::with(&[("tasks/a.wasm", "no wasm"), ("playbooks/b.yml", "")]);
        let catalog = Catalog::load(folders.listing(), &ComponentRunner::new().unwrap());
        assert_eq!(catalog.routes.tasks().len(), 1);
        assert!(catalog.findings[0].text.starts_with("it is not a component"));
    }
}
