//! The catalog: the tasks, ready to run.
//!
//! Owns what is loaded and what is refused. It is never changed: a new one is made beside it and
//! swapped in whole, so a run has one version of everything from its beginning to its end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use loopabull_model::{Routes, Task, TaskKind, TaskName};
use loopabull_playbook::Secrets;
use loopabull_wasm::{Component, ComponentRunner};

use crate::config::Config;
use crate::error::chain;
use crate::tasks::discovery::{Finding, Listing, Severity, Stamp};
use crate::tasks::secrets;

/// A task that is ready to run.
#[derive(Clone)]
enum Loaded {
    Component(Component),
    /// Ansible reads a playbook when it is run; its secrets are read before.
    Playbook(Arc<Secrets>),
}

/// The tasks, ready to run.
#[derive(Default)]
pub(crate) struct Catalog {
    /// All tasks, those too that are refused: what comes for them must not be lost.
    pub routes: Arc<Routes>,
    pub findings: Vec<Finding>,
    loaded: BTreeMap<TaskName, Loaded>,
    refused: BTreeMap<TaskName, String>,
    /// Tasks that go on with an older version, and why.
    outdated: BTreeMap<TaskName, String>,
    stamps: BTreeMap<TaskName, Stamp>,
}

/// The catalog that is in force. A reload swaps in another one whole.
#[derive(Default)]
pub(crate) struct CurrentCatalog(RwLock<Arc<Catalog>>);

impl CurrentCatalog {
    /// Puts a first catalog in force.
    pub(crate) fn new(catalog: Catalog) -> Self {
        Self(RwLock::new(Arc::new(catalog)))
    }

    /// Returns the catalog that is in force. A caller that processes a message asks once, so that
    /// it sees one version of everything.
    pub(crate) fn get(&self) -> Arc<Catalog> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another catalog in force and returns it. Runs in progress keep their own catalog.
    pub(crate) fn replace(&self, catalog: Catalog) -> Arc<Catalog> {
        let catalog = Arc::new(catalog);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&catalog);
        catalog
    }
}

impl Catalog {
    /// Loads the tasks of a listing. What has not changed since `before` is taken from there; what has
    /// changed and cannot be loaded stays as it was there.
    pub(crate) fn load(
        config: &Config,
        listing: &Listing,
        runner: &ComponentRunner,
        before: Option<&Self>,
    ) -> Self {
        let mut catalog = Self { findings: listing.findings.clone(), ..Self::default() };
        let mut tasks = Vec::new();
        for task in &listing.tasks {
            let name = &task.name;
            let stamp = listing.stamp(name).cloned().unwrap_or_default();
            let is_known = |before: &&Self| before.stamps.get(name) == Some(&stamp);
            let loaded = match before.filter(is_known).and_then(|before| before.loaded(task)) {
                Some(known) => Ok(known),
                None => prepare(config, listing, task, runner),
            };
            match (loaded, before.and_then(|before| before.older(name))) {
                (Ok(loaded), _) => {
                    catalog.loaded.insert(name.clone(), loaded);
                    catalog.stamps.insert(name.clone(), stamp);
                    tasks.push(task.clone());
                }
                (Err(reason), Some((older, loaded))) => {
                    catalog.loaded.insert(name.clone(), loaded);
                    catalog.find(task, format!("the version before goes on: {reason}"));
                    catalog.outdated.insert(name.clone(), reason);
                    tasks.push(older);
                }
                (Err(reason), None) => {
                    catalog.find(task, reason.clone());
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

    /// Returns the secrets of a playbook.
    pub(crate) fn secrets(&self, name: &TaskName) -> Option<Arc<Secrets>> {
        match self.loaded.get(name)? {
            Loaded::Component(_) => None,
            Loaded::Playbook(secrets) => Some(Arc::clone(secrets)),
        }
    }

    /// Returns why a task must not run, if that is so.
    pub(crate) fn refused(&self, name: &TaskName) -> Option<&str> {
        self.refused.get(name).map(String::as_str)
    }

    /// Returns what is wrong with tasks, by their names, in one clause each.
    pub(crate) fn troubles(&self) -> impl Iterator<Item = (&TaskName, String)> {
        let refused = self.refused.iter().map(|(name, why)| (name, format!("refused: {why}")));
        let outdated = self.outdated.iter().map(|(name, why)| {
            (name, format!("its new version is refused, the old one runs: {why}"))
        });
        refused.chain(outdated)
    }

    /// Makes a task that was loaded go on as it was before, or refuses it.
    pub(crate) fn revert(&mut self, name: &TaskName, before: &Self, reason: String) {
        let (Some(task), Some((older, loaded))) =
            (self.routes.task(name).cloned(), before.older(name))
        else {
            return self.refuse(name, reason);
        };
        self.forget(name);
        self.loaded.insert(name.clone(), loaded);
        self.find(&task, format!("the version before goes on: {reason}"));
        self.outdated.insert(name.clone(), reason);
        let others = self.routes.tasks().into_iter().filter(|task| task.name != *name);
        let tasks: Vec<Task> = others.map(|task| (**task).clone()).chain([older]).collect();
        self.routes = Arc::new(Routes::build(tasks));
    }

    /// Refuses a task that was loaded.
    pub(crate) fn refuse(&mut self, name: &TaskName, reason: String) {
        let Some(task) = self.routes.task(name).cloned() else { return };
        self.forget(name);
        self.find(&task, reason.clone());
        self.refused.insert(name.clone(), reason);
    }

    fn forget(&mut self, name: &TaskName) {
        self.loaded.remove(name);
        self.stamps.remove(name);
    }

    /// Returns what is loaded of a task under the same manifest.
    fn loaded(&self, task: &Task) -> Option<Loaded> {
        let is_same = self.routes.task(&task.name).is_some_and(|known| **known == *task);
        let is_well =
            !self.refused.contains_key(&task.name) && !self.outdated.contains_key(&task.name);
        self.loaded.get(&task.name).filter(|_| is_same && is_well).cloned()
    }

    /// Returns a task that runs here.
    fn older(&self, name: &TaskName) -> Option<(Task, Loaded)> {
        let task = self.routes.task(name).filter(|_| !self.refused.contains_key(name))?;
        Some(((**task).clone(), self.loaded.get(name)?.clone()))
    }

    fn find(&mut self, task: &Task, text: String) {
        let ending = match task.kind {
            TaskKind::Component => "wasm",
            TaskKind::Playbook => "yml",
        };
        let file = PathBuf::from(format!("{}.{ending}", task.name));
        self.findings.push(Finding { severity: Severity::Problem, file, text });
    }
}

/// Makes a task ready to run. The error is one clause, with what the operator can do.
fn prepare(
    config: &Config,
    listing: &Listing,
    task: &Task,
    runner: &ComponentRunner,
) -> Result<Loaded, String> {
    if let Some(reason) = listing.refused.get(&task.name) {
        return Err(reason.clone());
    }
    let secrets = secrets::read(&task.manifest.grants.secrets).map_err(chain)?;
    if task.kind == TaskKind::Playbook {
        return Ok(Loaded::Playbook(Arc::new(Secrets::new(secrets))));
    }
    let most = config.ceiling.memory.map_or(loopabull_wasm::MAX_MEMORY, |memory| memory.as_u64());
    let memory = task.memory();
    if memory > most.min(loopabull_wasm::MAX_MEMORY) {
        return Err(format!("`limits.memory` is {memory} bytes, the most is {most}"));
    }
    let bytes = listing.component(&task.name)?;
    let component = runner.load(&bytes, &task.manifest, secrets).map_err(|error| {
        let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
        format!("{}{hint}", chain(error))
    })?;
    Ok(Loaded::Component(component))
}
