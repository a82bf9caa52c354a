//! Starts all sources, and the ingest path to which they pass messages.

mod datagrepper;
mod fedmsg;
mod fedora_messaging;

use std::sync::Arc;
use std::thread::JoinHandle;

use loopabull_egress::{TlsRoots, TlsRootsError};
use loopabull_fedmsg::Verifier;
use loopabull_fedora_messaging::{AmqpError, Bus, BusConfig};
use loopabull_store::StoreError;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::{Config, ConfigError, Role};
use crate::ingest::dedup::Dedup;
use crate::ingest::path::IngestPath;
use crate::ingest::publisher::Publisher;
use crate::ingest::quarantine::Quarantine;
use crate::ingest::shared::Shared;
use crate::ingest::signers::{self, SignersError};
use crate::ingest::sources::datagrepper::{Datagrepper, DatagrepperError};
use crate::ingest::sources::fedmsg::{FedmsgError, FedmsgSource};
use crate::ingest::sources::fedora_messaging::BusSource;
use crate::ingest::spool::Spool;

/// The reason why the sources or the ingest path cannot be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourcesError {
    #[error("cannot open the deduplication file")]
    Dedup(#[source] StoreError),
    #[error("cannot open the spool")]
    Spool(#[source] StoreError),
    #[error("cannot open the quarantine")]
    Quarantine(#[source] std::io::Error),
    #[error("cannot consume the fedora-messaging bus")]
    Bus(#[source] AmqpError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot verify fedmsg signatures")]
    Signers(#[from] SignersError),
    #[error("cannot load the CA certificates for requests to datagrepper")]
    TlsRoots(#[from] TlsRootsError),
    #[error(transparent)]
    Fedmsg(#[from] FedmsgError),
    #[error(transparent)]
    Datagrepper(#[from] DatagrepperError),
}

impl SourcesError {
    /// Returns a hint for the operator.
    pub(crate) fn hint(&self) -> Option<&str> {
        match self {
            Self::Signers(error) => error.hint(),
            Self::Datagrepper(error) => error.hint(),
            _ => None,
        }
    }
}

/// Starts the sources that a role needs, and the part that publishes the entries in the spool. That
/// part starts even without sources, because an earlier daemon may have left entries in the spool.
/// Returns the thread of the ZeroMQ sockets, if there is a fedmsg source.
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
        let (health, shutdown) = (Arc::clone(&shared.health), shared.shutdown.clone());
        parts.spawn(signers::refresh(config.fedmsg.clone(), verifiers, health, shutdown));
    } else if has_fedmsg {
        tracing::warn!(
            "SIGNATURES ARE NOT CHECKED: anyone who can publish on these endpoints can start tasks"
        );
    }
    let path = Arc::new(open_path(config, &shared).await?);
    parts.spawn(Arc::clone(&path).forward_spool());
    start_buses(&buses, &path, &shared, parts)?;
    if has_fedmsg {
        return start_fedmsg(config, &path, verifier, &shared, parts).map(Some);
    }
    if is_ingesting && config.datagrepper.is_some() {
        tracing::warn!("datagrepper is not used, because no fedmsg endpoint is configured");
    }
    Ok(None)
}

/// Opens the files in the state directory that the ingest path needs.
async fn open_path(config: &Config, shared: &Shared) -> Result<IngestPath, SourcesError> {
    let (state, spool_bytes) = (&config.state, config.fedmsg.spool.as_u64());
    let dedup = Dedup::open(&state.join("dedup.db"), &config.deduplication).await;
    let dedup = dedup.map_err(SourcesError::Dedup)?;
    let spool = Spool::open(&state.join("spool.db"), spool_bytes).await;
    let spool = spool.map_err(SourcesError::Spool)?;
    let quarantine = Quarantine::open(state).map_err(SourcesError::Quarantine)?;
    let Shared { catalog, queues, arrivals, health, activity, metrics, shutdown } = shared.clone();
    let own_metrics = Arc::clone(&metrics);
    let publisher = Publisher::new(
        queues,
        spool,
        quarantine,
        health,
        Arc::clone(&activity),
        own_metrics,
        shutdown.drain,
    );
    Ok(IngestPath::new(catalog, dedup, publisher, arrivals, activity, metrics))
}

fn start_buses(
    buses: &[BusConfig],
    path: &Arc<IngestPath>,
    shared: &Shared,
    parts: &mut JoinSet<()>,
) -> Result<(), SourcesError> {
    for config in buses {
        let bus = Bus::start(config).map_err(SourcesError::Bus)?;
        let name = format!("{} {}", bus.name(), config.queue.name).trim_end().to_owned();
        shared.activity.add_source(&name);
        let source = BusSource {
            name,
            path: Arc::clone(path),
            activity: Arc::clone(&shared.activity),
            metrics: Arc::clone(&shared.metrics),
            drain: shared.shutdown.drain.clone(),
        };
        parts.spawn(source.run(bus));
    }
    Ok(())
}

/// Starts the thread of the ZeroMQ sockets, and the datagrepper source, which fetches messages that
/// the sockets missed.
fn start_fedmsg(
    config: &Config,
    path: &Arc<IngestPath>,
    verifier: watch::Receiver<Arc<Verifier>>,
    shared: &Shared,
    parts: &mut JoinSet<()>,
) -> Result<JoinHandle<()>, SourcesError> {
    for endpoint in &config.fedmsg.endpoints {
        shared.activity.add_source(&endpoint.address);
        tracing::info!("subscribing to `{}`", endpoint.address);
    }
    let sockets = fedmsg::start(&config.fedmsg, &shared.activity, &shared.metrics)?;
    if let Some(settings) = &config.datagrepper {
        let tls_roots = TlsRoots::load(config.http.ca_file.as_deref())?;
        let connections = sockets.connections;
        let archive = Datagrepper::open(settings, config, tls_roots, path, connections, shared)?;
        shared.activity.add_archive(archive.name());
        parts.spawn(archive.run());
    }
    let source = FedmsgSource {
        verifier,
        path: Arc::clone(path),
        activity: Arc::clone(&shared.activity),
        metrics: Arc::clone(&shared.metrics),
        drain: shared.shutdown.drain.clone(),
        cancel: shared.shutdown.cancel.clone(),
    };
    parts.spawn(source.run(sockets.received));
    Ok(sockets.thread)
}
