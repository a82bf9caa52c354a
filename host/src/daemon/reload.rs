//! Applies changes in the task directories while the daemon runs.
//!
//! This module decides when the task directories are reread. Each reload builds a new catalog,
//! which is the set of loaded tasks, and replaces the current catalog as a whole. If the new
//! version of a component cannot be loaded, the previous version stays in use, and `/readyz` reports
//! the problem. The playbooks of a new catalog are checked by `playbook_checks`. A task with a new
//! queue takes effect only after a restart, because queues and their workers cannot change while the
//! daemon runs.

use std::collections::BTreeSet;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use loopabull_model::TaskName;
use loopabull_queue::Queues;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, StaffedQueue};
use crate::observe::activity::Activity;
use crate::observe::health::{Health, Part};
use crate::observe::metrics::Metrics;
use crate::tasks::catalog::Catalog;
use crate::tasks::discovery::{Discovery, Finding, Severity};
use crate::work::ack_timeout;
use crate::work::runner::Runner;
use crate::work::shared::Shared;

/// Time for which the directories must be unchanged before they are reread. A file that is being
/// copied is therefore not read too early.
const SETTLE_INTERVAL: Duration = Duration::from_millis(200);
/// Maximum time to wait until the directories are unchanged.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);
/// Interval at which the directories are reread without a notification, because some file systems
/// send no notifications.
const RELOAD_INTERVAL: Duration = Duration::from_secs(30);
/// Interval at which they are reread while a directory or a file cannot be read, for example because the machine is
/// short of file descriptors.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Applies changes in the task directories.
pub(crate) struct Reload {
    config: Config,
    /// Queues that have workers, since the start.
    queues: Vec<StaffedQueue>,
    work_queues: Arc<Queues>,
    runner: Arc<Runner>,
    health: Arc<Health>,
    activity: Arc<Activity>,
    metrics: Arc<Metrics>,
    drain: CancellationToken,
    current: Arc<Discovery>,
    /// Changed tasks that could not be loaded, because the machine was short of something.
    short: BTreeSet<TaskName>,
}

impl Reload {
    /// Creates a `Reload`. `current` is the discovery from which the current catalog was loaded.
    pub(crate) fn new(config: &Config, work: &Shared, current: Arc<Discovery>) -> Self {
        let catalog = work.runner.catalog.get();
        let queues = config.staffed_queues(catalog.routes.tasks().into_iter().map(Arc::as_ref));
        Self {
            config: config.clone(),
            queues,
            work_queues: Arc::clone(&work.queues),
            runner: Arc::clone(&work.runner),
            health: Arc::clone(&work.health),
            activity: Arc::clone(&work.activity),
            metrics: Arc::clone(&work.metrics),
            drain: work.shutdown.drain.clone(),
            current,
            short: BTreeSet::new(),
        }
    }

    /// Watches the directories and applies changes until the daemon drains.
    pub(crate) async fn run(mut self) {
        let drain = self.drain.clone();
        let (sender, mut changes) = mpsc::channel(1);
        let folders = [self.config.tasks.clone(), self.config.playbooks.clone()];
        let mut is_notified = false;
        loop {
            // Each iteration creates a new watcher, because a directory may have been replaced. The
            // watcher also reports changes during the following reload.
            let _watcher = watch(&folders, sender.clone()).inspect_err(|error| {
                tracing::warn!("cannot watch the directories of tasks: {error}")
            });
            // A reload in progress can be dropped here. The catalog is replaced only in the last
            // step.
            let interval = tokio::select! {
                interval = self.reload() => interval,
                () = drain.cancelled() => return,
            };
            if is_notified {
                self.runner.catalog.notify();
            }
            is_notified = tokio::select! {
                Some(()) = changes.recv() => {
                    settle(&mut changes).await;
                    true
                }
                () = tokio::time::sleep(interval) => false,
                () = drain.cancelled() => return,
            }
        }
    }

    /// Reads the directories, and loads the tasks if a file has changed. Returns the time after which to do so
    /// again.
    async fn reload(&mut self) -> Duration {
        let (config, current) = (self.config.clone(), Arc::clone(&self.current));
        let read = tokio::task::spawn_blocking(move || Discovery::read(&config, Some(&current)));
        let Ok(discovery) = read.await else { return RETRY_INTERVAL };
        let is_new = |(folder, _): &&(PathBuf, String)| {
            !self.current.unreadable.iter().any(|(known, _)| known == folder)
        };
        if let Some((folder, reason)) = discovery.unreadable.iter().find(is_new) {
            // The directory could be read before and cannot be read now. Its tasks are unknown, so
            // the current catalog stays in use.
            let problem = format!("`{}`: {reason}", folder.display());
            self.health.report(Part::Tasks, problem);
            return RETRY_INTERVAL;
        }
        self.health.resolve(&Part::Tasks);
        if discovery.is_same(&self.current) && self.short.is_empty() {
            return RELOAD_INTERVAL;
        }
        let previous = self.runner.catalog.get();
        let mut changed: Vec<_> = discovery
            .tasks
            .iter()
            .filter(|task| discovery.stamp(&task.name) != self.current.stamp(&task.name))
            .map(|task| task.name.clone())
            .collect();
        let loaded = {
            let (config, previous) = (self.config.clone(), Arc::clone(&previous));
            let components = Arc::clone(&self.runner.components);
            tokio::task::spawn_blocking(move || {
                (Catalog::load(&config, &discovery, &components, Some(&previous)), discovery)
            })
            .await
        };
        // `loaded` is an error only after a panic, which is a bug. The current catalog stays in
        // use.
        let Ok((mut catalog, discovery)) = loaded else {
            tracing::error!("cannot reload the tasks: loading them panicked");
            return RELOAD_INTERVAL;
        };
        self.current = Arc::new(discovery);
        changed.extend(std::mem::replace(&mut self.short, catalog.short.clone()));
        self.check(&mut catalog, &previous).await;
        report(catalog.all_findings());
        let names: Vec<_> = changed.iter().map(ToString::to_string).collect();
        tracing::info!("reloaded the tasks; changed: {}", names.join(", "));
        self.runner.catalog.replace(catalog);
        self.activity.forget_failures(&changed);
        self.metrics.reloads.inc();
        if self.short.is_empty() { RELOAD_INTERVAL } else { RETRY_INTERVAL }
    }

    /// Checks the tasks of a new catalog. If a task needs a restart or may run longer than the
    /// acknowledgement timeout, its previous version stays in use.
    async fn check(&self, catalog: &mut Catalog, previous: &Catalog) {
        let mut refused = Vec::new();
        for task in catalog.routes.tasks() {
            let queue = &task.manifest.queue;
            if !self.queues.iter().any(|staffed| staffed.config.name == *queue) {
                let reason = format!("queue `{queue}` has no workers yet; restart the daemon");
                refused.push((task.name.clone(), reason));
            }
        }
        let routes = Arc::clone(&catalog.routes);
        let tasks = routes.tasks().into_iter().map(Arc::as_ref);
        if !self.config.ignore_consumer_timeout {
            for long in ack_timeout::too_long(&self.queues, &self.work_queues, tasks).await {
                refused.push((long.task().clone(), format!("{long}; {}", long.hint())));
            }
        }
        for (name, reason) in refused {
            catalog.revert(&name, previous, reason);
        }
    }
}

/// Logs findings about tasks.
pub(crate) fn report<'a>(findings: impl Iterator<Item = &'a Finding>) {
    for finding in findings {
        let file = finding.file.display();
        match finding.severity {
            Severity::Note => tracing::info!("`{file}`: {}", finding.text),
            Severity::Problem => tracing::error!("`{file}`: {}", finding.text),
        }
    }
}

/// Sends a notification to `changes` for every change in the directories. Also for every change of the
/// directories themselves: each may be renamed, or be a link that is switched.
fn watch(folders: &[PathBuf], changes: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    // Events have absolute paths.
    let absolute = |folder: &PathBuf| std::path::absolute(folder).unwrap_or(folder.clone());
    let folders: Vec<PathBuf> = folders.iter().map(absolute).collect();
    let parents: BTreeSet<PathBuf> =
        folders.iter().filter_map(|folder| folder.parent().map(Path::to_owned)).collect();
    let (watched, known) = (folders.clone(), parents.clone());
    // notify ignores that it could not start its thread, panics at the first call, and again when the watcher is
    // dropped, which would abort the daemon. So a thread is tried first, and a watcher that panicked is never dropped.
    std::thread::Builder::new().spawn(|| ()).map_err(notify::Error::io)?;
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        // Access notifications are ignored, because reading a file is not a change. So are changes of
        // other files beside the directories.
        let is_beside = |path: &Path| path.parent().is_some_and(|parent| known.contains(parent));
        let is_own = |path: &PathBuf| !is_beside(path) || watched.contains(path);
        let is_change = !event.kind.is_access() && event.paths.iter().any(is_own);
        // If the channel is full, a notification is already pending.
        if is_change && changes.try_send(()).is_err() {
            tracing::trace!("a notification is already pending");
        }
    })?;
    let mut watcher = ManuallyDrop::new(watcher);
    let watched = catch_unwind(AssertUnwindSafe(|| {
        for folder in folders.iter().filter(|folder| folder.is_dir()) {
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
        }
        for parent in &parents {
            // Without the permission to list a parent, a switched link is noticed at the next interval.
            if let Err(error) = watcher.watch(parent, RecursiveMode::NonRecursive) {
                tracing::debug!("cannot watch `{}`: {error}", parent.display());
            }
        }
        Ok(())
    }));
    match watched {
        Ok(watched) => {
            let watcher = ManuallyDrop::into_inner(watcher);
            watched.map(|()| watcher)
        }
        Err(_) => Err(notify::Error::generic("cannot start the thread of the watcher")),
    }
}

/// Waits until the directories are unchanged for `SETTLE_INTERVAL`, at most for `SETTLE_TIMEOUT`.
async fn settle(changes: &mut mpsc::Receiver<()>) {
    let quiet = async {
        while let Ok(Some(())) = tokio::time::timeout(SETTLE_INTERVAL, changes.recv()).await {}
    };
    drop(tokio::time::timeout(SETTLE_TIMEOUT, quiet).await);
}
