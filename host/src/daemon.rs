//! The daemon: starts its parts in order, drains and stops.
//!
//! Owns every tokio task of the process outside the queue. A part that ends too early, by an error or a
//! panic, stops the daemon with an error, so that no part fails silently.

mod orphans;
pub(crate) mod reexec;
mod reload;
pub(crate) mod state_dir;

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use loopabull_egress::TrustError;
use loopabull_model::TaskKind;
use loopabull_playbook::{PlaybookError, Playbooks};
use loopabull_queue::{Backoff, QueueError, Queues};
use loopabull_store::StoreError;
use loopabull_wasm::{ComponentRunner, EngineError};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Role, StaffedQueue};
use crate::daemon::reload::Reload;
use crate::daemon::state_dir::{DaemonFile, StateError};
use crate::ingest::sources::{self, SourcesError};
use crate::journal::{AfterQueues, Journal};
use crate::shutdown::Shutdown;
use crate::tasks::catalog::Catalog;
use crate::tasks::discovery::Discovery;
use crate::web::Web;
use crate::work::ack_timeout::{self, TooLong};
use crate::work::outbox;
use crate::work::pauses::{Pauses, Target};
use crate::work::runner::Runner;
use crate::work::shared::{Breakers, Running, Workplace};
use crate::work::task_locks::Turns;
use crate::work::worker::Worker;

/// How long cancelled runs may take to end.
const LAST_GRACE: Duration = Duration::from_secs(10);

/// How long the HTTP server may take to finish its responses.
const WEB_GRACE: Duration = Duration::from_secs(1);

/// How often the pauses that commands make are looked for.
const PAUSES_TICK: Duration = Duration::from_millis(300);

/// How often we look whether processes that have Ansible imported are still of use.
const WARM_TICK: Duration = Duration::from_secs(30);

/// The running daemon.
pub(crate) struct Daemon {
    shutdown: Shutdown,
    parts: JoinSet<()>,
    web: JoinSet<std::io::Result<()>>,
    web_stop: CancellationToken,
    source: Option<JoinHandle<()>>,
    grace: Duration,
    daemon_file: PathBuf,
    /// Locks the state directory as long as the daemon runs.
    _lock: File,
}

/// Why the daemon cannot start, or had to stop early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DaemonError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("cannot open the journal")]
    Journal(#[source] StoreError),
    #[error("cannot open the pauses")]
    Pauses(#[source] StoreError),
    #[error("cannot open the queues")]
    Queues(#[source] QueueError),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    TooLong(Vec<TooLong>),
    #[error("cannot set up HTTP requests of tasks")]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("cannot listen on `{address}`")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("cannot run playbooks")]
    Playbooks(#[source] PlaybookError),
    #[error(transparent)]
    Sources(#[from] SourcesError),
    #[error("a part of the daemon ended unexpectedly: {reason}")]
    PartEnded { reason: String },
}

impl DaemonError {
    /// Returns a hint for the operator.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Playbooks(error) => Some(error.hint().to_owned()),
            Self::Sources(error) => error.hint().map(str::to_owned),
            Self::State(error) => error.hint().map(str::to_owned),
            Self::Journal(StoreError::Version { path, .. }) => Some(format!(
                "another version of this program has written `{}`; move it away to start with no past runs",
                path.display()
            )),
            Self::Listen { .. } => {
                Some("name a free address with `--listen`; port 0 selects a free port".to_owned())
            }
            Self::TooLong(tasks) => tasks.first().map(TooLong::hint),
            _ => None,
        }
    }
}

/// How the daemon stopped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stopped {
    /// Every run ended in time.
    Drained,
    /// Some runs were cancelled, and their messages returned to the queue.
    Cancelled,
}

impl Daemon {
    /// Starts all parts.
    ///
    /// # Errors
    ///
    /// If a part cannot start. No message has been received then.
    pub(crate) async fn start(
        config: &Config,
        role: Role,
        shutdown: Shutdown,
    ) -> Result<Self, DaemonError> {
        state_dir::make(&config.state)?;
        let lock = state_dir::lock(&config.state).await?;
        state_dir::kill_orphans(&config.state)?;
        let discovery = Arc::new(Discovery::read(config));
        let place = Arc::new(workplace(config, &discovery, role, shutdown.clone()).await?);
        let address = config.listen;
        let cannot = |source| DaemonError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;

        let mut parts = JoinSet::new();
        let queues = staffed_queues(config, &place);
        if role != Role::Ingest {
            place.look_back().await;
            let staff = queues
                .iter()
                .flat_map(|queue| std::iter::repeat_n(&queue.config.name, queue.workers as usize));
            for (number, queue) in (1..).zip(staff) {
                place.board.add_worker(number, queue);
                let worker = Worker { number, queue: queue.clone(), place: Arc::clone(&place) };
                parts.spawn(worker.work());
            }
            parts.spawn(keep_pauses(Arc::clone(&place)));
            parts.spawn(send_left(Arc::clone(&place)));
            parts.spawn(keep_warm(Arc::clone(&place)));
            if let Some(publish) = &config.publish {
                parts.spawn(outbox::serve_bus(Arc::clone(&place), publish.clone()));
            }
        }
        parts.spawn(Reload::new(config, &place, discovery).run());
        let shared = sources::Shared {
            catalog: Arc::clone(&place.runner.catalog),
            queues: Arc::clone(&place.queues),
            board: Arc::clone(&place.board),
            metrics: Arc::clone(&place.metrics),
            shutdown: shutdown.clone(),
        };
        let source = sources::start(config, role, shared, &mut parts).await?;
        let (mut web, web_stop) = (JoinSet::new(), CancellationToken::new());
        let port = Web {
            board: Arc::clone(&place.board),
            metrics: Arc::clone(&place.metrics),
            queues: Arc::clone(&place.queues),
            names: queues.into_iter().map(|queue| queue.config.name).collect(),
            pauses: Arc::clone(&place.pauses),
            drain: shutdown.drain.clone(),
        };
        web.spawn(port.serve(listener, web_stop.clone()));
        let daemon_file = DaemonFile::write(&config.state, address)?;
        tracing::info!("ready: http://{address}/readyz");
        let grace = config.grace;
        Ok(Self { shutdown, parts, web, web_stop, source, grace, daemon_file, _lock: lock })
    }

    /// Waits for the stop signal, then stops the sources, the workers and the HTTP server, in this order.
    pub(crate) async fn wait(mut self) -> Result<Stopped, DaemonError> {
        let ended = tokio::select! {
            // The order matters: once the daemon drains, parts are expected to end.
            biased;
            () = self.shutdown.drain.cancelled() => None,
            Some(part) = self.parts.join_next() => Some(part.err().map(|e| e.to_string())),
            Some(web) = self.web.join_next() => Some(Some(format!("the HTTP server: {web:?}"))),
        };
        self.shutdown.drain.cancel();
        let stopped = self.drain().await;
        // Parts that are still running are aborted.
        self.parts.shutdown().await;
        self.web_stop.cancel();
        // Slow clients are cut off.
        let served = async { while self.web.join_next().await.is_some() {} };
        drop(tokio::time::timeout(WEB_GRACE, served).await);
        self.web.abort_all();
        if let Some(source) = self.source.take() {
            // The thread checks every 200 ms whether its receiver is closed, and it is closed now.
            drop(tokio::task::spawn_blocking(move || source.join()).await);
        }
        drop(std::fs::remove_file(&self.daemon_file));
        match ended {
            None => stopped,
            Some(reason) => Err(DaemonError::PartEnded {
                reason: reason.unwrap_or_else(|| "it returned early".to_owned()),
            }),
        }
    }

    async fn drain(&mut self) -> Result<Stopped, DaemonError> {
        let grace = humantime::format_duration(self.grace);
        tracing::info!("draining: waiting up to {grace} for runs in progress");
        let cancel = self.shutdown.cancel.clone();
        let mut stopped = Stopped::Drained;
        let in_time = tokio::select! {
            ended = tokio::time::timeout(self.grace, join_all(&mut self.parts)) => ended.ok(),
            () = cancel.cancelled() => None,
        };
        let result = match in_time {
            Some(result) => result,
            None => {
                stopped = Stopped::Cancelled;
                tracing::warn!("cancelling the remaining runs; their messages return to the queue");
                cancel.cancel();
                tokio::time::timeout(LAST_GRACE, join_all(&mut self.parts)).await.unwrap_or_else(
                    |_| {
                        Err(DaemonError::PartEnded {
                            reason: "it did not end within the grace period".to_owned(),
                        })
                    },
                )
            }
        };
        result.map(|()| stopped)
    }
}

async fn join_all(parts: &mut JoinSet<()>) -> Result<(), DaemonError> {
    let mut result = Ok(());
    while let Some(ended) = parts.join_next().await {
        if let Err(error) = ended {
            result = Err(DaemonError::PartEnded { reason: error.to_string() });
        }
    }
    result
}

/// Opens what all workers share.
async fn workplace(
    config: &Config,
    discovery: &Arc<Discovery>,
    role: Role,
    shutdown: Shutdown,
) -> Result<Workplace, DaemonError> {
    let journal = Arc::new(Journal::open(&config.state).map_err(DaemonError::Journal)?);
    let pauses = Arc::new(Pauses::open(&config.state).map_err(DaemonError::Pauses)?);
    pauses.refresh().await.map_err(DaemonError::Pauses)?;
    // A stopped worker stops with its daemon.
    for target in pauses.known().keys().filter(|target| matches!(target, Target::Worker(_))) {
        pauses.resume(target.clone()).await.map_err(DaemonError::Pauses)?;
    }
    let runner = {
        // On a blocking thread, so that signals are handled meanwhile.
        let (config, discovery) = (config.clone(), discovery.clone());
        let load = tokio::task::spawn_blocking(move || runner(&config, &discovery, role));
        let ended =
            |error: tokio::task::JoinError| DaemonError::PartEnded { reason: error.to_string() };
        Arc::new(load.await.map_err(ended)??)
    };
    let catalog = runner.catalog.get();
    let tasks = || catalog.routes.tasks().into_iter().map(Arc::as_ref);
    let queues = Queues::open(&config.queues(tasks())).await.map_err(DaemonError::Queues)?;
    if role != Role::Ingest {
        let too_long = ack_timeout::too_long(config, &queues, tasks()).await;
        if !too_long.is_empty() && !config.ignore_consumer_timeout {
            return Err(DaemonError::TooLong(too_long));
        }
        for task in too_long {
            tracing::warn!("{task}: its messages will be delivered again while it runs");
        }
    }
    let after_queues = match config.publish {
        Some(_) => AfterQueues::Bus,
        None => AfterQueues::Done,
    };
    let place = Workplace {
        queues: Arc::new(queues),
        runner,
        journal,
        pauses,
        board: Arc::default(),
        metrics: Arc::default(),
        shutdown,
        breakers: Breakers::default(),
        running: Running::default(),
        turns: Turns::default(),
        after_queues,
        refused_tasks: config.refused_tasks,
    };
    place.show_troubles(&catalog);
    Ok(place)
}

fn staffed_queues(config: &Config, place: &Workplace) -> Vec<StaffedQueue> {
    let catalog = place.runner.catalog.get();
    config.staffed_queues(catalog.routes.tasks().into_iter().map(Arc::as_ref))
}

/// Hears of pauses that were made or ended by commands, and lets go what is held of tasks that do not
/// rest: again and again, since a worker may hold an entry of a task that was just resumed.
async fn keep_pauses(place: Arc<Workplace>) {
    const TROUBLE: &str = "pauses";
    let drain = &place.shutdown.drain;
    let mut backoff = Backoff::default();
    while !drain.is_cancelled() {
        let kept = tokio::select! {
            kept = place.hear_of_pauses() => kept,
            () = drain.cancelled() => return,
        };
        match kept {
            Ok(()) => {
                place.board.clear_trouble(TROUBLE);
                backoff.reset();
                tokio::select! {
                    () = tokio::time::sleep(PAUSES_TICK) => (),
                    () = drain.cancelled() => (),
                }
            }
            Err(error) => {
                place.board.set_trouble(TROUBLE, &error);
                tracing::error!("{TROUBLE}: {error}, trying again");
                backoff.pause(drain).await;
            }
        }
    }
}

/// Ends processes that have Ansible imported when nothing is run in them any more.
async fn keep_warm(place: Arc<Workplace>) {
    let drain = &place.shutdown.drain;
    let Ok(playbooks) = &place.runner.playbooks else { return drain.cancelled().await };
    while !drain.is_cancelled() {
        tokio::select! {
            () = tokio::time::sleep(WARM_TICK) => playbooks.expire().await,
            () = drain.cancelled() => (),
        }
    }
    playbooks.close().await;
}

/// Sends what earlier daemons recorded and did not come to send, until that is done.
async fn send_left(place: Arc<Workplace>) {
    const TROUBLE: &str = "outbox";
    let drain = &place.shutdown.drain;
    let mut backoff = Backoff::default();
    while !drain.is_cancelled() {
        let Err(error) = place.send_left().await else { break };
        place.board.set_trouble(TROUBLE, &error);
        tracing::error!("{TROUBLE}: {error}, trying again");
        backoff.pause(drain).await;
    }
    place.board.clear_trouble(TROUBLE);
    // A part that ends by itself ends the daemon.
    drain.cancelled().await;
}

/// Loads the tasks and opens their runners. Logs problems of single tasks.
fn runner(config: &Config, discovery: &Discovery, role: Role) -> Result<Runner, DaemonError> {
    let workers = config.staffed_queues(&discovery.tasks).iter().map(|queue| queue.workers).sum();
    let components = Arc::new(ComponentRunner::new(&config.components(workers)?)?);
    let catalog = Catalog::load(config, discovery, &components, None);
    reload::report(&catalog.findings);
    let tasks = catalog.routes.tasks();
    for task in &tasks {
        tracing::info!("task `{}`: {}", task.name, task.kind);
    }
    if tasks.is_empty() {
        tracing::warn!("no tasks are installed: every message will be counted and dropped");
    }
    let playbooks = Playbooks::open(&config.playbook_settings("runs"));
    // Without a runner of playbooks, the daemon would dead-letter every message of a playbook.
    let is_needed =
        role != Role::Ingest && tasks.iter().any(|task| task.kind == TaskKind::Playbook);
    let playbooks = match playbooks {
        Err(error) if is_needed => return Err(DaemonError::Playbooks(error)),
        playbooks => playbooks.map_err(|error| error.to_string()),
    };
    Ok(Runner::new(components, playbooks, catalog))
}
