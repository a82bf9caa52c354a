//! Reload: what changes in the two directories of tasks comes into force while the daemon runs.
//!
//! Owns when the directories are read again. A new catalog is made beside the one in force and
//! swapped in whole; a component that is broken in it stays as it was, a playbook is refused, and either
//! is a trouble that `/readyz` shows. What cannot change without a restart, the queues and their
//! workers, is refused with that word.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use loopabull_model::{QueueName, TaskName};
use loopabull_queue::Queues;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::observe::health::{Health, Part};
use crate::observe::metrics::Metrics;
use crate::tasks::catalog::Catalog;
use crate::tasks::discovery::{Finding, Listing, Severity};
use crate::work::ack_timeout;
use crate::work::runner::Runner;
use crate::work::shared::Shared;

/// How long the directories must be still before they are read: a file that is being copied is not
/// half a version.
const STILL: Duration = Duration::from_millis(200);
/// The longest time that changes are waited out, if they never end.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How often the directories are looked at although nothing was heard: not every file system tells.
const LOOK: Duration = Duration::from_secs(30);
/// How long Ansible may take to read a playbook.
const PATIENCE: Duration = Duration::from_secs(60);

/// Brings what changes in the directories into force.
pub(crate) struct Reload {
    config: Config,
    /// The queues that have workers.
    queues: Vec<QueueName>,
    work_queues: Arc<Queues>,
    runner: Arc<Runner>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    drain: CancellationToken,
    in_force: Arc<Listing>,
}

impl Reload {
    /// Makes a reload of what is in force, which was loaded from this listing.
    pub(crate) fn new(config: &Config, work: &Shared, in_force: Arc<Listing>) -> Self {
        let catalog = work.runner.catalog.get();
        let staffed = config.staffed_queues(catalog.routes.tasks().into_iter().map(Arc::as_ref));
        let queues = staffed.into_iter().map(|queue| queue.config.name).collect();
        Self {
            config: config.clone(),
            queues,
            work_queues: Arc::clone(&work.queues),
            runner: Arc::clone(&work.runner),
            health: Arc::clone(&work.health),
            metrics: Arc::clone(&work.metrics),
            drain: work.shutdown.drain.clone(),
            in_force,
        }
    }

    /// Watches until the daemon drains.
    pub(crate) async fn run(mut self) {
        let drain = self.drain.clone();
        let (sender, mut changes) = mpsc::channel(1);
        let folders = [self.config.tasks.clone(), self.config.playbooks.clone()];
        loop {
            // Anew each time: a directory may have been moved away and another taken its place. What
            // changes while the tasks are loaded is heard of by the next look.
            let _watcher = watch(&folders, sender.clone())
                .inspect_err(|error| tracing::warn!("cannot watch the directories: {error}"));
            // A look that is given up has put nothing in force.
            tokio::select! {
                () = self.look() => (),
                () = drain.cancelled() => return,
            }
            tokio::select! {
                Some(()) = changes.recv() => settle(&mut changes).await,
                () = tokio::time::sleep(LOOK) => (),
                () = drain.cancelled() => return,
            }
        }
    }

    /// Reads the directories, and puts what has changed in force.
    async fn look(&mut self) {
        let config = self.config.clone();
        let Ok(listing) = tokio::task::spawn_blocking(move || Listing::read(&config)).await else {
            return;
        };
        let is_news = |(folder, _): &&(PathBuf, String)| {
            !self.in_force.unreadable.iter().any(|(before, _)| before == folder)
        };
        if let Some((folder, reason)) = listing.unreadable.iter().find(is_news) {
            // Not empty: nobody knows what is in it. What is in force stays.
            let problem = format!("`{}`: {reason}", folder.display());
            self.health.report(Part::Tasks, problem);
            return;
        }
        self.health.resolve(&Part::Tasks);
        if listing.is_same(&self.in_force) {
            return;
        }
        let before = self.runner.catalog.get();
        let changed: Vec<_> = listing
            .tasks
            .iter()
            .filter(|task| listing.stamp(&task.name) != self.in_force.stamp(&task.name))
            .map(|task| task.name.clone())
            .collect();
        let loaded = {
            let (config, before) = (self.config.clone(), Arc::clone(&before));
            let components = Arc::clone(&self.runner.components);
            tokio::task::spawn_blocking(move || {
                (Catalog::load(&config, &listing, &components, Some(&before)), listing)
            })
            .await
        };
        // A panic in there is a bug; the old catalog stays.
        let Ok((mut catalog, listing)) = loaded else {
            tracing::error!("the tasks could not be loaded anew");
            return;
        };
        self.in_force = Arc::new(listing);
        self.check(&mut catalog, &before, &changed).await;
        report(&catalog.findings);
        let names: Vec<_> = changed.iter().map(ToString::to_string).collect();
        tracing::info!("loaded the tasks anew: {} changed", names.join(", "));
        self.put_in_force(catalog);
        self.metrics.reloads.inc();
    }

    /// Puts another catalog in force, and reports the problems of its tasks.
    fn put_in_force(&self, catalog: Catalog) {
        for (name, _) in self.runner.catalog.get().troubles() {
            self.health.resolve(&Part::Task(name.clone()));
        }
        report_problems(&self.runner.catalog.replace(catalog), &self.health);
    }

    /// Refuses what cannot come into force.
    async fn check(&self, catalog: &mut Catalog, before: &Catalog, changed: &[TaskName]) {
        let mut refused = Vec::new();
        for task in catalog.routes.tasks() {
            let queue = &task.manifest.queue;
            if !self.queues.contains(queue) {
                let reason = format!("its queue `{queue}` has no workers here; restart the daemon");
                refused.push((task.name.clone(), reason));
            }
        }
        let routes = Arc::clone(&catalog.routes);
        let tasks = routes.tasks().into_iter().map(Arc::as_ref);
        if !self.config.ignore_consumer_timeout {
            for long in ack_timeout::too_long(&self.config, &self.work_queues, tasks).await {
                refused.push((long.task().clone(), format!("{long}; {}", long.hint())));
            }
        }
        for (name, reason) in refused {
            catalog.revert(&name, before, reason);
        }
        // Ansible reads a playbook when it runs it, so there is no version before to go on with.
        let is_new = |name: &TaskName| changed.contains(name) || before.refused(name).is_some();
        for task in routes.tasks() {
            if let Some(secrets) = catalog.secrets(&task.name)
                && is_new(&task.name)
                && let Ok(playbooks) = &self.runner.playbooks
                && let Err(complaint) = playbooks.check(task, &secrets, PATIENCE).await
            {
                catalog.refuse(&task.name, complaint.to_string());
            }
        }
    }
}

/// Reports the problems of the tasks of a catalog.
pub(crate) fn report_problems(catalog: &Catalog, health: &Health) {
    for (name, problem) in catalog.troubles() {
        health.report(Part::Task(name.clone()), problem);
    }
}

/// Logs what is wrong with single tasks.
pub(crate) fn report(findings: &[Finding]) {
    for finding in findings {
        let file = finding.file.display();
        match finding.severity {
            Severity::Note => tracing::info!("`{file}`: {}", finding.text),
            Severity::Problem => tracing::error!("`{file}`: {}", finding.text),
        }
    }
}

/// Tells `changes` of every change in the folders.
fn watch(folders: &[PathBuf], changes: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Looking at a file is not a change. If one waits already, that is enough.
        let is_change = event.is_ok_and(|event| !event.kind.is_access());
        if is_change && changes.try_send(()).is_err() {
            tracing::trace!("a change is waiting already");
        }
    })?;
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

/// Waits until nothing has changed for a while.
async fn settle(changes: &mut mpsc::Receiver<()>) {
    let quiet =
        async { while let Ok(Some(())) = tokio::time::timeout(STILL, changes.recv()).await {} };
    drop(tokio::time::timeout(LONGEST_WAIT, quiet).await);
}
