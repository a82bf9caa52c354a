//! The daemon starts its parts in order, waits for the stop signal, drains, and stops.
//!
//! A part is a tokio task that runs until the daemon drains, for example a source or a worker. If a
//! part returns early or panics, the daemon stops with an error, so that no part fails unnoticed.
//! The queues and the connections to buses have tasks of their own, which the daemon does not
//! watch. The daemon does not process messages itself.

mod housekeeping;
mod orphans;
mod playbook_checks;
pub(crate) mod reexec;
mod reload;
pub(crate) mod socket;
pub(crate) mod state_dir;

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use loopabull_egress::TlsRootsError;
use loopabull_model::{Target, TaskKind};
use loopabull_queue::{QueueError, Queues};
use loopabull_store::StoreError;
use loopabull_wasm::{ComponentRunner, EngineError};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config, ConfigError, Role, StaffedQueue};
use crate::daemon::housekeeping::Housekeeping;
use crate::daemon::playbook_checks::PlaybookChecks;
use crate::daemon::reload::Reload;
use crate::daemon::state_dir::{DaemonFile, StateError};
use crate::ingest;
use crate::ingest::sources::{self, SourcesError};
use crate::journal::{self, Journal, Retention};
use crate::observe::arrivals::Arrivals;
use crate::observe::health::Health;
use crate::shutdown::Shutdown;
use crate::tasks::catalog::Catalog;
use crate::tasks::discovery::Discovery;
use crate::web;
use crate::web::token::Token;
use crate::work::ack_timeout::{self, TimeoutTooLong};
use crate::work::audit::Audit;
use crate::work::pauses::Pauses;
use crate::work::runner::Runner;
use crate::work::shared::Shared;
use crate::work::starts::{StartError, Starts};
use crate::work::unknown_tasks::UnknownTasks;
use crate::work::workers;
use loopabull_playbook::{PlaybookError, Playbooks};

/// Time limit for cancelled runs to end.
const LAST_GRACE: Duration = Duration::from_secs(10);

/// Time limit for the HTTP server to finish its responses.
const WEB_GRACE: Duration = Duration::from_secs(1);

/// Interval at which expired warm Ansible processes are stopped.
const CONTROLLER_CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// The running daemon.
pub(crate) struct Daemon {
    shutdown: Shutdown,
    parts: JoinSet<()>,
    web: JoinSet<()>,
    web_stop: CancellationToken,
    source: Option<JoinHandle<()>>,
    grace: Duration,
    state: PathBuf,
    /// Lock on the state directory, held while the daemon runs.
    _lock: File,
}

/// The reason why the daemon cannot start, or stopped early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DaemonError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("cannot use the directory `{}` of tasks: {reason}", folder.display())]
    Directory { folder: PathBuf, reason: String },
    #[error("cannot open the journal")]
    Journal(#[source] StoreError),
    #[error(transparent)]
    Starts(StartError),
    #[error("cannot open the stored pauses")]
    Pauses(#[source] StoreError),
    #[error("cannot open the queues")]
    Queues(#[source] QueueError),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    TimeoutTooLong(Vec<TimeoutTooLong>),
    #[error("cannot load the CA certificates for HTTP requests of tasks")]
    TlsRoots(#[from] TlsRootsError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Token(#[from] ConfigError),
    #[error("cannot listen on `{address}`")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("cannot run playbooks")]
    Playbooks(#[source] PlaybookError),
    #[error(transparent)]
    Sources(#[from] SourcesError),
    #[error("a part of the daemon failed: {reason}")]
    PartEnded { reason: String },
}

impl DaemonError {
    /// Returns a hint for the operator.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Playbooks(error) => Some(error.hint().to_owned()),
            Self::Sources(error) => error.hint().map(str::to_owned),
            Self::State(error) => error.hint().map(str::to_owned),
            Self::Directory { .. } => Some(
                "create the directory, or name another one with `--tasks` or `--playbooks`"
                    .to_owned(),
            ),
            Self::Journal(StoreError::Newer { .. }) | Self::Pauses(StoreError::Newer { .. }) => {
                Some("start that version again; the files are unchanged".to_owned())
            }
            Self::Queues(error) => error.hint().map(str::to_owned),
            Self::Listen { .. } => {
                Some("name a free address with `--listen`; port 0 selects a free port".to_owned())
            }
            Self::Token(error) => error.hint().map(str::to_owned),
            Self::TimeoutTooLong(tasks) => tasks.first().map(TimeoutTooLong::hint),
            _ => None,
        }
    }
}

/// How the daemon stopped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stopped {
    /// Every run ended in time.
    Drained,
    /// Some runs were cancelled, and their messages were requeued.
    Cancelled,
}

impl Daemon {
    /// Starts all parts.
    ///
    /// # Errors
    ///
    /// If a part cannot start. No run has begun in this case.
    pub(crate) async fn start(
        config: &Config,
        role: Role,
        shutdown: Shutdown,
    ) -> Result<Self, DaemonError> {
        let token = config.token_file.as_deref().map(Token::read).transpose()?;
        let operate = config.operate_token_file.as_deref().map(Token::read).transpose()?;
        if token.is_some() && token == operate {
            return Err(ConfigError::SameToken.into());
        }
        state_dir::make(&config.state)?;
        state_dir::restrict(config)?;
        let lock = state_dir::lock(&config.state).await?;
        // A killed daemon leaves its file, with its key.
        DaemonFile::remove(&config.state);
        state_dir::kill_orphans(&config.state)?;
        let discovery = Arc::new(Discovery::read(config, None));
        if let Some((folder, reason)) = discovery.unknown_dir().cloned() {
            return Err(DaemonError::Directory { folder, reason });
        }
        let work = open(config, &discovery, role, shutdown.clone()).await?;
        let address = config.listen;
        let cannot = |source| DaemonError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;

        let mut parts = JoinSet::new();
        let queues = staffed_queues(config, &work);
        parts.spawn(Reload::new(config, &work, discovery).run());
        let config::Journal { keep, keep_failed, max_size } = config.journal;
        let housekeeping = Housekeeping {
            journal: Arc::clone(&work.journal),
            retention: Retention { keep, keep_failed, max_size: max_size.as_u64() },
            drain: shutdown.drain.clone(),
        };
        parts.spawn(housekeeping.run());
        if role != Role::Ingest {
            parts.spawn(PlaybookChecks::new(&work).run());
        }
        let audit = Audit::open(&config.state).map_err(DaemonError::Pauses)?;
        let keep = config.arrivals.keep;
        let arrivals = Arc::new(Arrivals::open(&config.state, keep));
        let ingest = ingest::shared::Shared {
            arrivals: Arc::clone(&arrivals),
            catalog: Arc::clone(&work.runner.catalog),
            queues: Arc::clone(&work.queues),
            health: Arc::clone(&work.health),
            activity: Arc::clone(&work.activity),
            metrics: Arc::clone(&work.metrics),
            shutdown: shutdown.clone(),
        };
        let source = sources::start(config, role, ingest, &mut parts).await?;
        let (mut web, web_stop) = (JoinSet::new(), CancellationToken::new());
        let daemon_file = DaemonFile::new(address);
        let cannot = |source| StateError::Socket { path: config.state.clone(), source };
        let socket =
            socket::bind(&config.state).and_then(UnixListener::from_std).map_err(cannot)?;
        let port = web::shared::Shared {
            health: Arc::clone(&work.health),
            catalog: Arc::clone(&work.runner.catalog),
            activity: Arc::clone(&work.activity),
            metrics: Arc::clone(&work.metrics),
            queues: Arc::clone(&work.queues),
            names: queues.iter().map(|queue| queue.config.name.clone()).collect(),
            pauses: Arc::clone(&work.pauses),
            cancellations: Arc::clone(&work.cancellations),
            allowed_hosts: config.allowed_hosts.clone(),
            journal: Arc::clone(&work.journal),
            arrivals: Arc::clone(&arrivals),
            history: Arc::default(),
            token,
            operate,
            key: Token::of(&daemon_file.key),
            audit,
            looking_at_dead_letters: tokio::sync::Mutex::default(),
            drain: shutdown.drain.clone(),
            state: config.state.clone(),
            limits: config.warnings,
            encoding: parking_lot::Mutex::default(),
        };
        web.spawn({
            let (metrics, stop) = (Arc::clone(&work.metrics), web_stop.clone());
            async move { arrivals.write(&metrics, stop).await }
        });
        web.spawn(web::serve(port, listener, socket, web_stop.clone()));
        daemon_file.write(&config.state)?;
        // The workers start last. If a later step failed, it would interrupt their runs. The
        // remaining steps cannot fail.
        if role != Role::Ingest {
            workers::start(config, &work, &queues, &mut parts).await;
            parts.spawn(expire_controllers(Arc::clone(&work.runner), shutdown.drain.clone()));
        }
        tracing::info!("ready: http://{address}/readyz");
        let (grace, state) = (config.grace, config.state.clone());
        Ok(Self { shutdown, parts, web, web_stop, source, grace, state, _lock: lock })
    }

    /// Waits for the stop signal. Then stops the sources and the workers, and after them the HTTP
    /// server.
    pub(crate) async fn wait(mut self) -> Result<Stopped, DaemonError> {
        let ended = tokio::select! {
            // The drain is checked first, because parts are expected to end once the daemon drains.
            biased;
            () = self.shutdown.drain.cancelled() => None,
            Some(part) = self.parts.join_next() => Some(part.err().map(|e| e.to_string())),
            Some(web) = self.web.join_next() => Some(Some(format!("the HTTP server ended with {web:?}"))),
        };
        self.shutdown.drain.cancel();
        let stopped = self.drain().await;
        // Aborts parts that are still running.
        self.parts.shutdown().await;
        self.web_stop.cancel();
        // Connections that are still open after the timeout are closed, so that a slow client does
        // not delay the stop.
        let served = async { while self.web.join_next().await.is_some() {} };
        drop(tokio::time::timeout(WEB_GRACE, served).await);
        self.web.abort_all();
        if let Some(source) = self.source.take() {
            // The fedmsg thread checks every 200 ms whether its receiver is closed. The receiver is
            // closed now.
            drop(tokio::task::spawn_blocking(move || source.join()).await);
        }
        DaemonFile::remove(&self.state);
        socket::remove(&self.state);
        match ended {
            None => stopped,
            Some(reason) => Err(DaemonError::PartEnded {
                reason: reason.unwrap_or_else(|| "a part returned early".to_owned()),
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
                tracing::warn!("cancelling the remaining runs; their messages are requeued");
                cancel.cancel();
                tokio::time::timeout(LAST_GRACE, join_all(&mut self.parts)).await.unwrap_or_else(
                    |_| {
                        Err(DaemonError::PartEnded {
                            reason: "a part did not end after the runs were cancelled".to_owned(),
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

/// Opens the parts that the workers share with the rest of the daemon.
async fn open(
    config: &Config,
    discovery: &Arc<Discovery>,
    role: Role,
    shutdown: Shutdown,
) -> Result<Shared, DaemonError> {
    let journal = Arc::new(Journal::open(&config.state).map_err(DaemonError::Journal)?);
    let starts = Starts::open(Arc::clone(&journal), &config.state).map_err(DaemonError::Starts)?;
    let pauses = Arc::new(Pauses::open(&config.state).map_err(DaemonError::Pauses)?);
    pauses.refresh().await.map_err(DaemonError::Pauses)?;
    // The pause of a worker ends with its daemon. So the pauses of workers that earlier daemons
    // left in the file are deleted.
    for target in pauses.current().keys().filter(|target| matches!(target, Target::Worker(_))) {
        pauses.resume(target.clone()).await.map_err(DaemonError::Pauses)?;
    }
    let runner = {
        // Loading compiles components and can take long, so it runs on a blocking thread. The
        // daemon handles signals in the meantime.
        let (config, discovery) = (config.clone(), discovery.clone());
        let load = tokio::task::spawn_blocking(move || runner(&config, &discovery, role));
        let ended =
            |error: tokio::task::JoinError| DaemonError::PartEnded { reason: error.to_string() };
        Arc::new(load.await.map_err(ended)??)
    };
    let catalog = runner.catalog.get();
    let tasks = || catalog.routes.tasks().into_iter().map(Arc::as_ref);
    let health = Arc::new(Health::default());
    let mut settings = config.queues(tasks());
    UnknownTasks::read(&config.state, &[], &health).add_to(&mut settings);
    let queues = Queues::open_in(&settings, journal.file(), journal::has_runs)
        .await
        .map_err(DaemonError::Queues)?;
    if role != Role::Ingest {
        let staffed = config.staffed_queues(tasks());
        let too_long = ack_timeout::too_long(&staffed, &queues, tasks()).await;
        if !too_long.is_empty() && !config.ignore_consumer_timeout {
            return Err(DaemonError::TimeoutTooLong(too_long));
        }
        for task in too_long {
            tracing::warn!("{task}; its messages may be redelivered while it runs");
        }
    }
    Ok(Shared {
        queues: Arc::new(queues),
        runner,
        journal,
        cancellations: Arc::default(),
        starts: Arc::new(starts),
        pauses,
        health,
        activity: Arc::default(),
        metrics: Arc::default(),
        shutdown,
    })
}

fn staffed_queues(config: &Config, work: &Shared) -> Vec<StaffedQueue> {
    let catalog = work.runner.catalog.get();
    config.staffed_queues(catalog.routes.tasks().into_iter().map(Arc::as_ref))
}

/// Stops expired warm Ansible processes at an interval. Stops all of them once the daemon drains.
async fn expire_controllers(runner: Arc<Runner>, drain: CancellationToken) {
    let Ok(playbooks) = &runner.playbooks else { return drain.cancelled().await };
    while !drain.is_cancelled() {
        tokio::select! {
            () = tokio::time::sleep(CONTROLLER_CHECK_INTERVAL) => playbooks.expire().await,
            () = drain.cancelled() => (),
        }
    }
    playbooks.close().await;
}

/// Loads the tasks, and opens the runners for components and playbooks. Logs problems with single
/// tasks.
fn runner(config: &Config, discovery: &Discovery, role: Role) -> Result<Runner, DaemonError> {
    let workers = config.staffed_queues(&discovery.tasks).iter().map(|queue| queue.workers).sum();
    let components = Arc::new(ComponentRunner::new(&config.components(workers)?)?);
    let catalog = Catalog::load(config, discovery, &components, None);
    reload::report(catalog.all_findings());
    let tasks = catalog.routes.tasks();
    for task in &tasks {
        tracing::info!("task `{}`: {}", task.name, task.kind);
    }
    if tasks.is_empty() {
        tracing::warn!("no tasks are installed: every message will be counted and dropped");
    }
    let playbooks = Playbooks::open(&config.playbook_settings("runs"));
    // Without a playbook runner, every message for a playbook would fail and be dead-lettered. So
    // the daemon does not start.
    let is_needed =
        role != Role::Ingest && tasks.iter().any(|task| task.kind == TaskKind::Playbook);
    let playbooks = match playbooks {
        Err(error) if is_needed => return Err(DaemonError::Playbooks(error)),
        playbooks => playbooks.map_err(|error| error.to_string()),
    };
    Ok(Runner::new(config, components, playbooks, catalog))
}
