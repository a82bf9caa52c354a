//! The listing: what the two directories of tasks hold, before anything is loaded.
//!
//! File names come from our own listing, beneath a directory that was opened once by cap-std;
//! nothing that a message contains is ever part of one. What is wrong with one file is a finding and
//! does not stop the others.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, MetadataExt};
use loopabull_model::{AnsibleOptions, Manifest, Task, TaskKind, TaskName};
use loopabull_wasm::MAX_COMPONENT;

use crate::config::Config;
use crate::tasks::{grants, secrets};

/// The largest manifest that is read, in bytes.
const MAX_MANIFEST: u64 = 64 << 10;

/// The tasks as the directories name them; nothing is compiled yet.
#[derive(Debug, Default)]
pub struct Listing {
    pub tasks: Vec<Task>,
    pub findings: Vec<Finding>,
    /// Those of `tasks` that must not run, and why.
    pub refused: BTreeMap<TaskName, String>,
    /// Directories that could not be read, and why: what is in them is not known.
    pub unreadable: Vec<(PathBuf, String)>,
    stamps: BTreeMap<TaskName, Stamp>,
    components: Option<Dir>,
}

/// Tells one state of a task's files, and of what its manifest refers to, from another.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Stamp(Vec<Option<(u64, u64, SystemTime)>>);

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
        let mut tasks: Vec<_> = tasks.into_values().collect();
        for task in &mut tasks {
            task.manifest.apply_ceiling(task.kind, &config.ceiling);
            if task.patterns().is_empty() {
                listing.findings.push(Finding {
                    severity: Severity::Problem,
                    file: PathBuf::from(task.name.as_str()),
                    text: "its name is not a topic and no manifest names `topics`".to_owned(),
                });
            }
            let mut excess = config.ceiling.excess(&task.manifest);
            excess.extend(task.manifest.grants.misplaced(task.kind));
            excess.extend(grants::unfit(config, &task.manifest));
            match task.kind {
                TaskKind::Playbook => {
                    let objections = loopabull_playbook::objections(&task.manifest);
                    excess.extend(objections.iter().map(ToString::to_string));
                }
                TaskKind::Component if task.manifest.ansible != AnsibleOptions::default() => {
                    excess.push("`[ansible]` is for playbooks".to_owned());
                }
                TaskKind::Component => (),
            }
            if !excess.is_empty() {
                listing.refused.entry(task.name.clone()).or_insert_with(|| excess.join("; "));
            }
        }
        listing.tasks = tasks;
        listing
    }

    /// Reads a component of the listing. The error is one clause.
    pub fn component(&self, name: &TaskName) -> Result<Vec<u8>, String> {
        let dir = self.components.as_ref().ok_or("the directory of components is not there")?;
        read(dir, &format!("{name}.wasm"), MAX_COMPONENT)
    }

    /// Tells the state of a task's files from earlier and later ones.
    pub fn stamp(&self, name: &TaskName) -> Option<&Stamp> {
        self.stamps.get(name)
    }

    /// Tells whether all files are as they are in another listing.
    pub fn is_same(&self, other: &Self) -> bool {
        self.stamps == other.stamps && self.findings == other.findings
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
                let text = format!("cannot open the directory: {error}");
                self.unreadable.push((folder.to_owned(), text.clone()));
                self.note(folder.to_owned(), text);
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
            // Before it is read: what changes in between is seen as a change.
            let mut stamp = Stamp::of(&dir, &name, ending);
            let (manifest, objection) = read_manifest(&dir, &name);
            if let Some(reason) = objection {
                self.refused.insert(name.clone(), format!("`{name}.toml`: {reason}"));
            }
            stamp.add_referred(&manifest);
            self.stamps.insert(name.clone(), stamp);
            let task = Task { name: name.clone(), kind, manifest };
            if tasks.insert(name.clone(), task).is_some() {
                self.note(
                    file,
                    format!("the component is the task, playbook `{name}.yml` is not run"),
                );
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

impl Stamp {
    fn of(dir: &Dir, name: &TaskName, ending: &str) -> Self {
        let of = |ending: &str| {
            let metadata = dir.metadata(format!("{name}.{ending}")).ok()?;
            Some((metadata.ino(), metadata.len(), metadata.modified().ok()?.into_std()))
        };
        Self(vec![of(ending), of("toml")])
    }

    /// Adds what the manifest refers to: a secret that is changed, or a directory that another took
    /// the place of, makes a new version of the task.
    fn add_referred(&mut self, manifest: &Manifest) {
        let grants = &manifest.grants;
        let secrets = grants.secrets.values().filter_map(secrets::path);
        let secrets = secrets.map(|path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.ino(), metadata.len(), metadata.modified().ok()?))
        });
        // What happens in a directory changes its times, not which one it is.
        let dirs = grants.dirs.iter().map(|dir| {
            let metadata = std::fs::metadata(&dir.host).ok()?;
            Some((metadata.ino(), metadata.dev(), SystemTime::UNIX_EPOCH))
        });
        self.0.extend(secrets.chain(dirs));
    }
}

/// Reads a manifest. One that cannot be used comes with the reason, and says at least where its
/// messages wait, as far as that could be read.
fn read_manifest(dir: &Dir, name: &TaskName) -> (Manifest, Option<String>) {
    let file = format!("{name}.toml");
    match dir.try_exists(&file) {
        Ok(true) => (),
        Ok(false) => return (Manifest::default(), None),
        Err(error) => return (Manifest::default(), Some(format!("cannot be opened: {error}"))),
    }
    let text = read(dir, &file, MAX_MANIFEST)
        .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned()));
    match text {
        Ok(text) => match Manifest::parse(&text) {
            Ok(manifest) => (manifest, None),
            Err(error) => (Manifest::salvage(&text), Some(error.to_string())),
        },
        Err(reason) => (Manifest::default(), Some(reason)),
    }
}

fn read(dir: &Dir, file: &str, limit: u64) -> Result<Vec<u8>, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    // A pipe would be waited for.
    if !dir.metadata(file).map_err(cannot)?.is_file() {
        return Err("it is not a file".to_owned());
    }
    let mut bytes = Vec::new();
    dir.open(file).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)).map_err(cannot)?;
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
        assert_eq!(listing.tasks.len(), 2);
        let refused: Vec<_> = listing.refused.into_iter().collect();
        let [(name, reason)] = &refused[..] else { panic!("{refused:?}") };
        assert_eq!(name.as_str(), "a");
        assert!(reason.contains("unknown field `topic`"), "{reason}");
    }

    #[test]
    fn of_a_broken_manifest_is_kept_where_its_messages_wait() {
        let text = "topics = ['x.y']\nqueue = 'slow'\nsecret = 1";
        let listing = Folders::with(&[("tasks/a.wasm", ""), ("tasks/a.toml", text)]).listing();
        assert_eq!(listing.refused.len(), 1);
        let task = &listing.tasks[0];
        assert_eq!(task.patterns()[0].to_string(), "x.y");
        assert_eq!(task.manifest.queue.as_str(), "slow");
    }

    #[test]
    fn a_directory_that_is_gone_is_not_an_empty_one() {
        let folders = Folders::with(&[]);
        std::fs::remove_dir(folders.0.path().join("tasks")).unwrap();
        assert_eq!(folders.listing().unreadable.len(), 1);
    }

    #[test]
    fn a_secret_that_changes_makes_a_new_version() {
        let folders = Folders::with(&[("tasks/a.wasm", ""), ("token", "one-secret")]);
        let token = folders.0.path().join("token");
        let manifest = format!("grants.secrets.t.file = '{}'", token.display());
        std::fs::write(folders.0.path().join("tasks/a.toml"), manifest).unwrap();
        let before = folders.listing();
        std::fs::write(token, "another-secret").unwrap();
        assert!(!before.is_same(&folders.listing()));
    }

    #[test]
    fn what_a_manifest_does_not_say_is_lowered_to_the_ceiling() {
        let folders = Folders::with(&[("tasks/a.wasm", ""), ("playbooks/b.yml", "")]);
        let folder = |name| folders.0.path().join(name);
        let ceiling = "timeout = '2s'\nmemory = '16MiB'";
        let config = Config {
            tasks: folder("tasks"),
            playbooks: folder("playbooks"),
            ceiling: toml::from_str(ceiling).unwrap(),
            ..Config::default()
        };
        let listing = Listing::read(&config);
        assert_eq!(listing.refused.len(), 0);
        for task in &listing.tasks {
            assert_eq!(task.timeout(), std::time::Duration::from_secs(2));
            assert_eq!(task.manifest.limits.memory, Some(bytesize::ByteSize::mib(16)));
        }
    }

    #[test]
    fn what_goes_beyond_the_ceiling_is_refused() {
        let folders =
            Folders::with(&[("tasks/a.wasm", ""), ("tasks/a.toml", "grants.emit = ['x']")]);
        let folder = |name| folders.0.path().join(name);
        let ceiling = loopabull_model::Ceiling { emit: Some(Vec::new()), ..Default::default() };
        let config = Config {
            tasks: folder("tasks"),
            playbooks: folder("playbooks"),
            ceiling,
            ..Config::default()
        };
        let refused = Listing::read(&config).refused;
        assert_eq!(refused[&"a".try_into().unwrap()], "the ceiling does not allow messages to `x`");
    }

    #[test]
    fn what_is_for_the_other_kind_of_task_is_refused() {
        let listing = Folders::with(&[
            ("playbooks/a.yml", ""),
            ("playbooks/a.toml", "grants.state = '1KiB'"),
            ("tasks/b.wasm", ""),
            ("tasks/b.toml", "ansible.check_mode = true"),
        ])
        .listing();
        let refused = |name: &str| listing.refused[&name.try_into().unwrap()].as_str();
        assert_eq!(refused("a"), "`grants.state` is for components");
        assert_eq!(refused("b"), "`[ansible]` is for playbooks");
    }

    #[test]
    fn a_listing_is_the_same_until_a_file_changes() {
        let folders = Folders::with(&[("tasks/a.wasm", ""), ("tasks/a.toml", "")]);
        let before = folders.listing();
        assert!(before.is_same(&folders.listing()));
        std::fs::write(folders.0.path().join("tasks/a.toml"), "queue = 'slow'").unwrap();
        let after = folders.listing();
        assert!(!before.is_same(&after));
        let name = "a".try_into().unwrap();
        assert_ne!(before.stamp(&name), after.stamp(&name));
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
}
