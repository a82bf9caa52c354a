//! Starts the workers. Also starts the parts that serve them: the pause watcher, the outbox and the
//! bus publisher.

use std::collections::BTreeSet;
use std::sync::Arc;

use loopabull_model::chain;
use loopabull_queue::{HeldTask, QueueConfig};
use tokio::task::JoinSet;

use crate::config::{Config, StaffedQueue};
use crate::journal::AfterQueues;
use crate::work::breakers::Breakers;
use crate::work::bus_publisher::BusPublisher;
use crate::work::crashes;
use crate::work::external::ExternalRouter;
use crate::work::in_progress::EntriesInProgress;
use crate::work::outbox::Outbox;
use crate::work::pause_watcher::PauseWatcher;
use crate::work::shared::Shared;
use crate::work::task_locks::TaskLocks;
use crate::work::unknown_tasks::UnknownTasks;
use crate::work::worker::Worker;
use crate::work::worker::admission::Admission;
use crate::work::worker::attempt::Attempts;
use crate::work::worker::delivery::Deliveries;
use crate::work::worker::ending::Endings;
use crate::work::worker::retry::Retries;
use crate::work::worker::settle::Settler;

/// Spawns the workers of the queues, and the parts that serve the workers, into `parts`. All of
/// these run until the daemon drains.
pub(crate) async fn start(
    config: &Config,
    shared: &Shared,
    queues: &[StaffedQueue],
    parts: &mut JoinSet<()>,
) {
    let drain = &shared.shutdown.drain;
    crashes::pause_crashing_tasks(&shared.starts, &shared.pauses, &shared.health, drain).await;
    let outbox = Arc::new(outbox(config, shared));
    let breakers =
        Arc::new(Breakers::new(Arc::clone(&shared.pauses), &shared.runner.catalog.get()));
    let deliveries = Arc::new(deliveries(config, shared, &outbox, &breakers));
    let external = Arc::new(ExternalRouter {
        catalog: Arc::clone(&shared.runner.catalog),
        metrics: Arc::clone(&shared.metrics),
        activity: Arc::clone(&shared.activity),
    });
    let staff =
        queues.iter().flat_map(|queue| std::iter::repeat_n(&queue.config, queue.workers as usize));
    for (number, queue) in (1..).zip(staff) {
        shared.activity.add_worker(number, &queue.name);
        let health = Arc::clone(&shared.health);
        let worker = Worker {
            queue: queue.name.clone(),
            prefetch: queue.prefetch,
            queues: Arc::clone(&shared.queues),
            pauses: Arc::clone(&shared.pauses),
            external: Arc::clone(&external),
            deliveries: Arc::clone(&deliveries),
            retries: Retries { worker: number, health, drain: drain.clone() },
        };
        parts.spawn(worker.run());
    }
    let names: Vec<_> = queues.iter().map(|queue| queue.config.name.clone()).collect();
    let watcher = PauseWatcher {
        pauses: Arc::clone(&shared.pauses),
        breakers: Arc::clone(&breakers),
        queues: Arc::clone(&shared.queues),
        catalog: Arc::clone(&shared.runner.catalog),
        health: Arc::clone(&shared.health),
        refused_tasks: config.refused_tasks,
        unknown: UnknownTasks::read(&config.state, &names, &shared.health),
        known: prepare_held(shared, queues).await,
        drain: drain.clone(),
    };
    parts.spawn(watcher.run());
    parts.spawn(outbox.run(Arc::clone(&shared.health), drain.clone()));
    if let Some(settings) = config.publish.clone() {
        let (journal, health) = (Arc::clone(&shared.journal), Arc::clone(&shared.health));
        let publisher = BusPublisher { journal, settings, health, drain: drain.clone() };
        parts.spawn(publisher.run());
    }
}

/// Prepares to hold entries of the installed tasks. Returns the tasks for which that succeeded; the pause watcher
/// tries the others again.
async fn prepare_held(shared: &Shared, queues: &[StaffedQueue]) -> BTreeSet<HeldTask> {
    let mut prepared = BTreeSet::new();
    for QueueConfig { name, tasks, .. } in queues.iter().map(|queue| &queue.config) {
        match shared.queues.add_tasks(name, tasks).await {
            Ok(()) => prepared.extend(tasks.iter().map(|task| (name.clone(), task.clone()))),
            Err(error) => tracing::warn!("cannot prepare queue `{name}`: {}", chain(error)),
        }
    }
    prepared
}

fn outbox(config: &Config, shared: &Shared) -> Outbox {
    Outbox {
        journal: Arc::clone(&shared.journal),
        queues: Arc::clone(&shared.queues),
        catalog: Arc::clone(&shared.runner.catalog),
        metrics: Arc::clone(&shared.metrics),
        activity: Arc::clone(&shared.activity),
        after_queues: match config.publish {
            Some(_) => AfterQueues::Bus,
            None => AfterQueues::Done,
        },
    }
}

fn deliveries(
    config: &Config,
    shared: &Shared,
    outbox: &Arc<Outbox>,
    breakers: &Arc<Breakers>,
) -> Deliveries {
    let attempts = Arc::new(Attempts {
        runner: Arc::clone(&shared.runner),
        journal: Arc::clone(&shared.journal),
        starts: Arc::clone(&shared.starts),
        outbox: Arc::clone(outbox),
        task_locks: TaskLocks::default(),
        metrics: Arc::clone(&shared.metrics),
        cancellations: Arc::clone(&shared.cancellations),
        cancel: shared.shutdown.cancel.clone(),
    });
    Deliveries {
        catalog: Arc::clone(&shared.runner.catalog),
        admission: Admission {
            pauses: Arc::clone(&shared.pauses),
            in_progress: EntriesInProgress::default(),
            breakers: Arc::clone(breakers),
            refused_tasks: config.refused_tasks,
            drain: shared.shutdown.drain.clone(),
        },
        starts: Arc::clone(&shared.starts),
        attempts: Arc::clone(&attempts),
        endings: Endings {
            attempts,
            outbox: Arc::clone(outbox),
            settler: Settler {
                metrics: Arc::clone(&shared.metrics),
                cancel: shared.shutdown.cancel.clone(),
            },
            activity: Arc::clone(&shared.activity),
        },
        breakers: Arc::clone(breakers),
        pauses: Arc::clone(&shared.pauses),
        activity: Arc::clone(&shared.activity),
    }
}
