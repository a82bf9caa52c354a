//! The catalog contains the loaded tasks, and the refused tasks with the reasons.
//!
//! This module loads the tasks that `discovery` found, and decides which of them are refused. It
//! does not decide when tasks are reloaded. A reload builds a new catalog, which replaces the
//! current catalog as a whole. So a run uses one version of all tasks from start to end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use loopabull_launcher::is_shortage;
use loopabull_model::{Routes, Task, TaskKind, TaskName, chain};
use loopabull_playbook::Secrets;
use loopabull_wasm::{Component, ComponentRunner, LoadError};
use tokio::sync::watch;

use crate::config::Config;
use crate::tasks::discovery::{Discovery, Finding, Severity};
use crate::tasks::files::FileError;
use crate::tasks::playbook::LoadedPlaybook;
use crate::tasks::secrets::{self, SecretError};
use crate::tasks::stamp::Stamp;

/// A loaded task.
#[derive(Clone)]
enum Loaded {
    Component(Component),
    Playbook(Arc<LoadedPlaybook>),
}

/// The reason why a task is refused that is not in the directories.
pub(crate) const NOT_INSTALLED: &str = "it is not installed";

/// The loaded tasks.
#[derive(Default)]
pub(crate) struct Catalog {
    /// Routes of all tasks. Refused tasks are included, so that their messages are not lost.
    pub routes: Arc<Routes>,
    /// Findings about files in the directories.
    pub findings: Vec<Finding>,
    /// Findings about tasks that could not be loaded.
    load_findings: Vec<Finding>,
    loaded: BTreeMap<TaskName, Loaded>,
    refused: BTreeMap<TaskName, String>,
    /// Tasks whose previous version stays in use, and the reasons.
    outdated: BTreeMap<TaskName, String>,
    stamps: BTreeMap<TaskName, Stamp>,
    /// Tasks that could not be loaded, because the machine was short of something.
    pub short: BTreeSet<TaskName>,
}

/// The current catalog, which a reload replaces as a whole.
#[derive(Default)]
pub(crate) struct CurrentCatalog(watch::Sender<Arc<Catalog>>);

impl CurrentCatalog {
    /// Makes a first catalog current.
    pub(crate) fn new(catalog: Catalog) -> Self {
        Self(watch::Sender::new(Arc::new(catalog)))
    }

    /// Returns the current catalog. Call this function once for each message, so that the message
    /// is processed with one version of all tasks.
    pub(crate) fn get(&self) -> Arc<Catalog> {
        Arc::clone(&self.0.borrow())
    }

    /// Makes another catalog current. Runs in progress keep the catalog that they began with.
    pub(crate) fn replace(&self, catalog: Catalog) {
        self.0.send_replace(Arc::new(catalog));
    }

    /// Notifies the subscribers that a file beside the tasks has changed, for example a role.
    pub(crate) fn notify(&self) {
        self.0.send_modify(|_| ());
    }

    /// Returns a receiver that is notified when the catalog is replaced, and by [`Self::notify`].
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Catalog>> {
        self.0.subscribe()
    }
}

impl Catalog {
    /// Loads the discovered tasks. Unchanged tasks are taken from `previous`. If a changed task
    /// cannot be loaded, its previous version stays in use.
    pub(crate) fn load(
        config: &Config,
        discovery: &Discovery,
        runner: &ComponentRunner,
        previous: Option<&Self>,
    ) -> Self {
        let mut catalog = Self { findings: discovery.findings.clone(), ..Self::default() };
        let mut tasks = Vec::new();
        for task in &discovery.tasks {
            let name = &task.name;
            let stamp = discovery.stamp(name).cloned().unwrap_or_default();
            let is_unchanged = |previous: &&Self| previous.stamps.get(name) == Some(&stamp);
            let unchanged = previous.filter(is_unchanged);
            let loaded = match unchanged.and_then(|previous| previous.loaded(task)) {
                Some(loaded) => Ok(loaded),
                None => load_task(config, discovery, task, runner).map_err(|error| {
                    if is_short(&error) {
                        catalog.short.insert(name.clone());
                    }
                    chain(error)
                }),
            };
            match (loaded, previous.and_then(|previous| previous.usable(name))) {
                (Ok(loaded), _) => {
                    catalog.loaded.insert(name.clone(), loaded);
                    catalog.stamps.insert(name.clone(), stamp);
                    tasks.push(task.clone());
                }
                (Err(reason), Some((usable, loaded))) => {
                    catalog.loaded.insert(name.clone(), loaded);
                    catalog.add_problem(task, still_in_use(&reason));
                    catalog.outdated.insert(name.clone(), reason);
                    tasks.push(usable);
                }
                (Err(reason), None) => {
                    catalog.add_problem(task, reason.clone());
                    catalog.refused.insert(name.clone(), reason);
                    tasks.push(task.clone());
                }
            }
        }
        catalog.routes = Arc::new(Routes::build(tasks));
        catalog
    }

    /// Returns the component of a task.
    pub(crate) fn component(&self, name: &TaskName) -> Option<&Component> {
        match self.loaded.get(name)? {
            Loaded::Component(component) => Some(component),
            Loaded::Playbook(_) => None,
        }
    }

    /// Returns a loaded playbook.
    pub(crate) fn playbook(&self, name: &TaskName) -> Option<&LoadedPlaybook> {
        match self.loaded.get(name)? {
            Loaded::Component(_) => None,
            Loaded::Playbook(playbook) => Some(playbook),
        }
    }

    /// Returns all loaded playbooks with their tasks.
    pub(crate) fn playbooks(&self) -> impl Iterator<Item = (&Task, &LoadedPlaybook)> {
        let tasks = self.routes.tasks().into_iter().map(Arc::as_ref);
        tasks.filter_map(|task| Some((task, self.playbook(&task.name)?)))
    }

    /// Returns the reason why a task must not run, or none if it may run. A task that is not installed
    /// is refused, because its files may only be away for a while.
    pub(crate) fn refused(&self, name: &TaskName) -> Option<String> {
        if self.routes.task(name).is_none() {
            return Some(NOT_INSTALLED.to_owned());
        }
        let failure = || self.playbook(name).and_then(LoadedPlaybook::failure);
        self.refused.get(name).cloned().or_else(failure)
    }

    /// Returns the findings about files and about tasks.
    pub(crate) fn all_findings(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().chain(&self.load_findings)
    }

    /// Returns one line for each problem of a file or a task, as `/readyz` shows them.
    pub(crate) fn problem_lines(&self) -> Vec<String> {
        let files = self.findings.iter().filter(|finding| finding.severity == Severity::Problem);
        let files = files.map(|finding| format!("`{}`: {}", finding.file.display(), finding.text));
        let tasks = self.problems().map(|(task, problem)| format!("task `{task}`: {problem}"));
        files.chain(tasks).collect()
    }

    /// Returns the problems of tasks, one clause for each.
    fn problems(&self) -> impl Iterator<Item = (&TaskName, String)> {
        let refused = self.refused.iter().map(|(name, why)| (name, format!("refused: {why}")));
        let outdated = self.outdated.iter().map(|(name, why)| {
            (name, format!("the new version is refused, the previous version stays in use: {why}"))
        });
        let failed = self.loaded.keys().filter_map(|name| {
            let why = self.playbook(name)?.failure()?;
            Some((name, format!("refused: {why}")))
        });
        refused.chain(outdated).chain(failed)
    }

    /// Replaces a loaded task by its previous version. Refuses the task if it has no previous
    /// version.
    pub(crate) fn revert(&mut self, name: &TaskName, previous: &Self, reason: String) {
        let (Some(task), Some((usable, loaded))) =
            (self.routes.task(name).cloned(), previous.usable(name))
        else {
            return self.refuse(name, reason);
        };
        self.forget(name);
        self.loaded.insert(name.clone(), loaded);
        self.add_problem(&task, still_in_use(&reason));
        self.outdated.insert(name.clone(), reason);
        let others = self.routes.tasks().into_iter().filter(|task| task.name != *name);
        let tasks: Vec<Task> = others.map(|task| (**task).clone()).chain([usable]).collect();
        self.routes = Arc::new(Routes::build(tasks));
    }

    /// Refuses a loaded task.
    pub(crate) fn refuse(&mut self, name: &TaskName, reason: String) {
        let Some(task) = self.routes.task(name).cloned() else { return };
        self.forget(name);
        self.add_problem(&task, reason.clone());
        self.refused.insert(name.clone(), reason);
    }

    fn forget(&mut self, name: &TaskName) {
        self.loaded.remove(name);
        self.stamps.remove(name);
    }

    /// Returns the loaded component or playbook of a task, if its manifest is unchanged and the task
    /// has no problem.
    fn loaded(&self, task: &Task) -> Option<Loaded> {
        let is_same = self.routes.task(&task.name).is_some_and(|known| **known == *task);
        let has_no_problem =
            !self.refused.contains_key(&task.name) && !self.outdated.contains_key(&task.name);
        self.loaded.get(&task.name).filter(|_| is_same && has_no_problem).cloned()
    }

    /// Returns a task of this catalog that is loaded and not refused.
    fn usable(&self, name: &TaskName) -> Option<(Task, Loaded)> {
        let task = self.routes.task(name).filter(|_| self.refused(name).is_none())?;
        Some(((**task).clone(), self.loaded.get(name)?.clone()))
    }

    fn add_problem(&mut self, task: &Task, text: String) {
        let extension = match task.kind {
            TaskKind::Component => "wasm",
            TaskKind::Playbook => "yml",
        };
        let file = PathBuf::from(format!("{}.{extension}", task.name));
        self.load_findings.push(Finding { severity: Severity::Problem, file, text });
    }
}

fn still_in_use(reason: &str) -> String {
    format!("the previous version stays in use: {reason}")
}

/// The reason why a task cannot be loaded.
#[derive(Debug, thiserror::Error)]
enum TaskLoadError {
    #[error("{reason}")]
    Refused { reason: String },
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("`limits.memory` is {memory} bytes, but the maximum is {max}")]
    Memory { memory: u64, max: u64 },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{}{}", chain(.0), hint(.0))]
    Component(LoadError),
}

/// Returns whether an error comes from a shortage of the machine.
fn is_short(error: &TaskLoadError) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref().is_some_and(is_shortage) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn hint(error: &LoadError) -> String {
    error.hint().map(|hint| format!("; {hint}")).unwrap_or_default()
}

/// Loads a task.
fn load_task(
    config: &Config,
    discovery: &Discovery,
    task: &Task,
    runner: &ComponentRunner,
) -> Result<Loaded, TaskLoadError> {
    if let Some(reason) = discovery.refused.get(&task.name) {
        return Err(TaskLoadError::Refused { reason: reason.clone() });
    }
    let secrets = secrets::read(&task.manifest.grants.secrets)?;
    if task.kind == TaskKind::Playbook {
        let dir = discovery.playbook_dir().ok_or(FileError::NoDirectory)?;
        return Ok(Loaded::Playbook(Arc::new(LoadedPlaybook::new(dir, Secrets::new(secrets)))));
    }
    let ceiling = config.ceiling.memory.map_or(u64::MAX, |memory| memory.as_u64());
    let max = ceiling.min(loopabull_wasm::MAX_MEMORY);
    let memory = task.memory();
    if memory > max {
        return Err(TaskLoadError::Memory { memory, max });
    }
    let bytes = discovery.component(&task.name)?;
    let component =
        runner.load(&bytes, &task.manifest, secrets).map_err(TaskLoadError::Component)?;
    Ok(Loaded::Component(component))
}
