//! The daemon: starts everything in order, drains, stops.
//!
//! Owns every tokio task of the process outside the queue. A part that ends before it was told to,
//! by an error or a panic, ends the daemon with an error: nothing stops in silence.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use loopabull_fedmsg::Verifier;
use loopabull_model::TaskKind;
use loopabull_queue::{Queue, QueueError};
use loopabull_store::StoreError;
use loopabull_wasm::{ComponentRunner, EngineError};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::board::Board;
use crate::catalog::{Catalog, Listing, Severity};
use crate::config::Config;
use crate::ingest::Ingest;
use crate::ingest::fedmsg::{self, SourceError};
use crate::journal::Journal;
use crate::leftovers;
use crate::metrics::Metrics;
use crate::playbook::{PlaybookError, Playbooks};
use crate::runner::Runner;
use crate::shutdown::Shutdown;
use crate::web::Web;
use crate::worker::Worker;

/// How long cancelled runs may take to end.
const LAST_GRACE: Duration = Duration::from_secs(10);

/// How long the port may take to finish its answers.
const WEB_GRACE: Duration = Duration::from_secs(1);

/// The running daemon.
pub struct Daemon {
    /// Where the operator's port is.
    pub address: SocketAddr,
    shutdown: Shutdown,
    parts: JoinSet<()>,
    web: JoinSet<std::io::Result<()>>,
    web_stop: CancellationToken,
    source: Option<JoinHandle<()>>,
    grace: Duration,
    notice: PathBuf,
    /// Held as long as the daemon runs.
    _lock: File,
}

/// What the daemon does of the road of a message.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Role {
    /// Takes messages in and works them.
    #[default]
    All,
    /// Only takes messages in.
    Ingest,
    /// Only works them.
    Work,
}

/// How other commands find the daemon of a state directory: the file `daemon.json` in it.
#[derive(Debug, Deserialize, Serialize)]
pub struct Notice {
    pub pid: u32,
    pub listen: SocketAddr,
}

/// Why the daemon cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error("cannot make the state directory `{path}`")]
    State { path: PathBuf, source: std::io::Error },
    #[error("another daemon uses the state directory `{path}`")]
    StateInUse { path: PathBuf },
    #[error("cannot lock the state directory `{path}`")]
    Lock { path: PathBuf, source: std::io::Error },
    #[error("cannot clear what an earlier daemon left in `{path}`")]
    Leftovers { path: PathBuf, source: std::io::Error },
    #[error("cannot write `{path}`")]
    Notice { path: PathBuf, source: std::io::Error },
    #[error("cannot open the journal")]
    Journal(#[source] StoreError),
    #[error("cannot open the queue")]
    Queue(#[source] QueueError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("cannot listen on `{address}`")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("cannot run playbooks")]
    Playbooks(#[source] PlaybookError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("a part of the daemon ended by itself: {reason}")]
    PartEnded { reason: String },
}

impl DaemonError {
    /// Returns what the operator can do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Playbooks(error) => Some(error.hint()),
            Self::StateInUse { .. } => Some("give each daemon a directory of its own: `--state`"),
            Self::Listen { .. } => Some("name a free address with `--listen`, port 0 for any"),
            _ => None,
        }
    }
}

/// How the daemon stopped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stopped {
    /// Every run ended by itself.
    Drained,
    /// Runs had to be cancelled and were given back.
    Cancelled,
}

impl Notice {
    /// Where the notice of a state directory is.
    pub fn path(state: &std::path::Path) -> PathBuf {
        state.join("daemon.json")
    }
}

impl Daemon {
    /// Starts everything. What cannot work at all is an error here, before anything is taken in.
    pub async fn start(
        config: &Config,
        role: Role,
        shutdown: Shutdown,
    ) -> Result<Self, DaemonError> {
        make_state(config)?;
        let lock = lock_state(config)?;
        sweep(config)?;
        let journal = Arc::new(Journal::open(&config.state).map_err(DaemonError::Journal)?);
        let runner = Arc::new(runner(config, role)?);
        let queue = Queue::open(&config.queue()).await.map_err(DaemonError::Queue)?;
        let queue = Arc::new(queue);
        let (board, metrics) = (Arc::new(Board::default()), Arc::new(Metrics::new()));
        let address = config.listen;
        let cannot = |source| DaemonError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;

        let mut parts = JoinSet::new();
        if role != Role::Ingest {
            board.add_workers(config.workers);
            for number in 1..=config.workers {
                let worker = Worker {
                    number,
                    queue: Arc::clone(&queue),
                    runner: Arc::clone(&runner),
                    journal: Arc::clone(&journal),
                    board: Arc::clone(&board),
                    metrics: Arc::clone(&metrics),
                    shutdown: shutdown.clone(),
                };
                parts.spawn(worker.work());
            }
        }
        let mut source = None;
        if role != Role::Work && !config.fedmsg.endpoints.is_empty() {
            let fedmsgs = fedmsg::start(&config.fedmsg)?;
            for endpoint in &config.fedmsg.endpoints {
                board.add_source(endpoint);
                tracing::info!("subscribed to `{endpoint}`");
            }
            tracing::warn!(
                "SIGNATURES ARE NOT CHECKED: whoever can publish on these endpoints can start tasks"
            );
            let ingest = Ingest {
                verifier: Verifier::Off,
                routes: Arc::clone(&runner.catalog.routes),
                queue: Arc::clone(&queue),
                board: Arc::clone(&board),
                metrics: Arc::clone(&metrics),
                shutdown: shutdown.clone(),
            };
            parts.spawn(ingest.run(fedmsgs.received));
            source = Some(fedmsgs.thread);
        }
        let (mut web, web_stop) = (JoinSet::new(), CancellationToken::new());
        let port = Web { board, metrics, queue, drain: shutdown.drain.clone() };
        web.spawn(port.serve(listener, web_stop.clone()));
        let notice = Notice::path(&config.state);
        write_notice(&notice, address)?;
        tracing::info!("ready: http://{address}/readyz");
        let grace = config.grace;
        Ok(Self { address, shutdown, parts, web, web_stop, source, grace, notice, _lock: lock })
    }

    /// Waits until it is told to stop, then stops: first the sources, then the workers, then the
    /// port.
    pub async fn wait(mut self) -> Result<Stopped, DaemonError> {
        let ended = tokio::select! {
            // First: once it is told to drain, a part that ends does what it should.
            biased;
            () = self.shutdown.drain.cancelled() => None,
            Some(part) = self.parts.join_next() => Some(part.err().map(|e| e.to_string())),
            Some(web) = self.web.join_next() => Some(Some(format!("the port: {web:?}"))),
        };
        self.shutdown.drain.cancel();
        let stopped = self.drain().await;
        // What has not ended by now is dropped where it waits.
        self.parts.shutdown().await;
        self.web_stop.cancel();
        // A client that is slow, or does not mean to end, is not waited for.
        let served = async { while self.web.join_next().await.is_some() {} };
        drop(tokio::time::timeout(WEB_GRACE, served).await);
        self.web.abort_all();
        if let Some(source) = self.source.take() {
            // It looks every 200 ms whether anybody listens; nobody does any more.
            drop(tokio::task::spawn_blocking(move || source.join()).await);
        }
        drop(std::fs::remove_file(&self.notice));
        match ended {
            None => stopped,
            Some(reason) => Err(DaemonError::PartEnded {
                reason: reason.unwrap_or_else(|| "it returned".to_owned()),
            }),
        }
    }

    async fn drain(&mut self) -> Result<Stopped, DaemonError> {
        let grace = humantime::format_duration(self.grace);
        tracing::info!("draining: runs may take up to {grace} to end");
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
                tracing::warn!(
                    "cancelling what is left; the messages of cancelled runs are given back"
                );
                cancel.cancel();
                tokio::time::timeout(LAST_GRACE, join_all(&mut self.parts)).await.unwrap_or_else(
                    |_| Err(DaemonError::PartEnded { reason: "it did not end in time".to_owned() }),
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

/// Loads the tasks and finds what runs them; logs what is wrong with single ones.
fn runner(config: &Config, role: Role) -> Result<Runner, DaemonError> {
    let components = ComponentRunner::new()?;
    let catalog = Catalog::load(Listing::read(config), &components);
    for finding in &catalog.findings {
        let file = finding.file.display();
        match finding.severity {
            Severity::Note => tracing::info!("`{file}`: {}", finding.text),
            Severity::Problem => tracing::error!("`{file}`: {}", finding.text),
        }
    }
    let tasks = catalog.routes.tasks();
    for task in &tasks {
        tracing::info!("task `{}`: {}", task.name, task.kind);
    }
    if tasks.is_empty() {
        tracing::warn!("there is no task: every message will be counted and dropped");
    }
    let playbooks = Playbooks::open(config, "runs");
    // A daemon that cannot run a task it has would only turn its messages into dead letters.
    let is_needed =
        role != Role::Ingest && tasks.iter().any(|task| task.kind == TaskKind::Playbook);
    let playbooks = match playbooks {
        Err(error) if is_needed => return Err(DaemonError::Playbooks(error)),
        playbooks => playbooks.map_err(|error| error.to_string()),
    };
    Ok(Runner { components, playbooks, catalog })
}

/// Makes the state directory, which only its owner can look into.
pub(crate) fn make_state(config: &Config) -> Result<(), DaemonError> {
    let path = config.state.clone();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&path)
        .map_err(|source| DaemonError::State { path, source })
}

/// Makes this the one daemon of its state directory.
fn lock_state(config: &Config) -> Result<File, DaemonError> {
    let path = config.state.clone();
    match File::create(path.join("daemon.lock")).map(|file| (file.try_lock(), file)) {
        Ok((Ok(()), file)) => Ok(file),
        Ok((Err(TryLockError::WouldBlock), _)) => Err(DaemonError::StateInUse { path }),
        Ok((Err(TryLockError::Error(source)), _)) | Err(source) => {
            Err(DaemonError::Lock { path, source })
        }
    }
}

/// Ends what a daemon that was killed has left running, before its messages are run again.
fn sweep(config: &Config) -> Result<(), DaemonError> {
    let Ok(path) = config.state.join("runs").canonicalize() else { return Ok(()) };
    let killed = leftovers::sweep(&path);
    let killed = killed.map_err(|source| DaemonError::Leftovers { path, source })?;
    if killed > 0 {
        tracing::warn!(
            "killed {killed} processes of playbooks that an earlier daemon left running"
        );
    }
    Ok(())
}

fn write_notice(path: &std::path::Path, listen: SocketAddr) -> Result<(), DaemonError> {
    let notice = Notice { pid: std::process::id(), listen };
    let text = serde_json::to_string(&notice).expect("a notice is made of JSON types");
    let folder = path.parent().unwrap_or(std::path::Path::new("."));
    tempfile::NamedTempFile::new_in(folder)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.persist(path).map_err(|error| error.error)
        })
        .map(|_| ())
        .map_err(|source| DaemonError::Notice { path: path.to_owned(), source })
}
