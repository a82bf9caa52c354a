//! All sources together: starts them and the road behind them.

mod datagrepper;
pub(crate) mod fedmsg;
mod fedora_messaging;

use std::sync::Arc;
use std::thread::JoinHandle;

use loopabull_egress::{Trust, TrustError};
use loopabull_fedmsg::Verifier;
use loopabull_fedora_messaging::{AmqpError, Bus, BusConfig};
use loopabull_queue::Queues;
use loopabull_store::StoreError;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::{Config, ConfigError, Role};
use crate::ingest::dedup::Seen;
use crate::ingest::quarantine::Parked;
use crate::ingest::signers::{self, SignersError};
use crate::ingest::sources::datagrepper::{Datagrepper, DatagrepperError};
use crate::ingest::sources::fedmsg::SourceError;
use crate::ingest::sources::fedora_messaging::BusSource;
use crate::ingest::spool::Spool;
use crate::ingest::{Ingest, Overflow};
use crate::observe::metrics::Metrics;
use crate::observe::status::Board;
use crate::shutdown::Shutdown;
use crate::tasks::catalog::CurrentCatalog;

/// Why the sources, or the road behind them, cannot be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourcesError {
    #[error("cannot open what is known of earlier messages")]
    Seen(#[source] StoreError),
    #[error("cannot open the spool")]
    Spool(#[source] StoreError),
    #[error("cannot open the folder of what cannot be used")]
    Parked(#[source] std::io::Error),
    #[error("cannot consume the bus")]
    Bus(#[source] AmqpError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot tell signers apart")]
    Signers(#[from] SignersError),
    #[error("cannot call out over HTTP")]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Fedmsg(#[from] SourceError),
    #[error(transparent)]
    Datagrepper(#[from] DatagrepperError),
}

impl SourcesError {
    /// Returns what the operator can do.
    pub(crate) fn hint(&self) -> Option<&str> {
        match self {
            Self::Signers(error) => error.hint(),
            _ => None,
        }
    }
}

/// The parts of the daemon that the sources use.
pub(crate) struct Shared {
    pub(crate) catalog: Arc<CurrentCatalog>,
    pub(crate) queues: Arc<Queues>,
    pub(crate) board: Arc<Board>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) shutdown: Shutdown,
}

/// Starts the sources of a daemon in this role and the spool behind them. A daemon without sources
/// also forwards the spool, because an earlier daemon may have left entries in it. Returns the
/// thread that owns the ZeroMQ sockets, if there is one.
pub(crate) async fn start(
    config: &Config,
    role: Role,
    shared: Shared,
    parts: &mut JoinSet<()>,
) -> Result<Option<JoinHandle<()>>, SourcesError> {
    let is_ingesting = role != Role::Work;
    let buses = if is_ingesting { config.buses()? } else { Vec::new() };
    let has_fedmsg = is_ingesting && !config.fedmsg.endpoints.is_empty();
    let verifier = if has_fedmsg { signers::verifier(&config.fedmsg)? } else { Verifier::Off };
    let is_checked = !matches!(verifier, Verifier::Off);
    let (verifiers, verifier) = watch::channel(Arc::new(verifier));
    if is_checked {
        let (board, shutdown) = (Arc::clone(&shared.board), shared.shutdown.clone());
        parts.spawn(signers::keep(config.fedmsg.clone(), verifiers, board, shutdown));
    } else if has_fedmsg {
        tracing::warn!(
            "SIGNATURES ARE NOT CHECKED: whoever can publish on these endpoints can start tasks"
        );
    }
    let seen = Seen::open(&config.state.join("seen.db"), &config.deduplication).await;
    let spool = Spool::open(&config.state.join("spool.db"), config.fedmsg.spool.as_u64()).await;
    let parked = Arc::new(Parked::open(&config.state).map_err(SourcesError::Parked)?);
    let ingest = Arc::new(Ingest {
        verifier,
        catalog: shared.catalog,
        queues: shared.queues,
        seen: seen.map_err(SourcesError::Seen)?,
        spool: spool.map_err(SourcesError::Spool)?,
        parked,
        board: shared.board,
        metrics: shared.metrics,
        shutdown: shared.shutdown,
        overflow: Overflow::default(),
    });
    parts.spawn(Arc::clone(&ingest).forward());
    start_buses(&buses, &ingest, parts)?;
    if has_fedmsg {
        return start_fedmsg(config, ingest, parts).map(Some);
    }
    if is_ingesting && config.datagrepper.is_some() {
        tracing::warn!("datagrepper is not asked: it stands in for endpoints of fedmsg alone");
    }
    Ok(None)
}

fn start_buses(
    buses: &[BusConfig],
    ingest: &Arc<Ingest>,
    parts: &mut JoinSet<()>,
) -> Result<(), SourcesError> {
    for config in buses {
        let bus = Bus::start(config).map_err(SourcesError::Bus)?;
        let name = format!("{} {}", bus.name(), config.queue.name).trim_end().to_owned();
        ingest.board.add_source(&name);
        parts.spawn(BusSource { name, ingest: Arc::clone(ingest) }.run(bus));
    }
    Ok(())
}

/// Starts the thread of the sockets, and the archive that stands in for them.
fn start_fedmsg(
    config: &Config,
    ingest: Arc<Ingest>,
    parts: &mut JoinSet<()>,
) -> Result<JoinHandle<()>, SourcesError> {
    for endpoint in &config.fedmsg.endpoints {
        ingest.board.add_source(&endpoint.address);
        tracing::info!("subscribing to `{}`", endpoint.address);
    }
    let fedmsgs = fedmsg::start(&config.fedmsg, &ingest.board, &ingest.metrics)?;
    if let Some(settings) = &config.datagrepper {
        let trust = Trust::load(config.http.ca_file.as_deref())?;
        let (road, links) = (Arc::clone(&ingest), fedmsgs.links);
        let archive =
            Datagrepper::open(settings, &config.fedmsg, trust, &config.state, road, links)?;
        ingest.board.add_source(archive.name());
        parts.spawn(archive.run());
    }
    parts.spawn(ingest.run(fedmsgs.received));
    Ok(fedmsgs.thread)
}
