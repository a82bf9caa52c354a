//! The thread of the fedmsg source polls the ZeroMQ SUB sockets.
//!
//! The sockets are polled in a thread of their own, so that ZeroMQ never blocks the async runtime.
//! The thread parses envelopes and does not verify them. It passes them through a channel to the
//! tokio task of the fedmsg source, which verifies them.
//!
//! The number and the total size of the envelopes in the channel are limited. If a limit is
//! reached, the thread drops the next envelope and counts it. If the thread waited instead, the
//! publisher would drop messages, and this host would not notice it.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use loopabull_fedmsg::{Envelope, Rejection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use zmq::{Context, PollItem};

use crate::config::Fedmsg;
use crate::ingest::log_limit::LogLimit;
use crate::ingest::sources::fedmsg::endpoint::Endpoint;
use crate::observe::activity::{Activity, Link};
use crate::observe::metrics::{ByEndpoint, Metrics};

/// Maximum number of envelopes in the channel to the runtime.
const MAX_ENVELOPES: usize = 100_000;
/// Maximum total size of the envelopes in the channel, in KiB: a burst of 50,000 messages of a kilobyte fits.
const MAX_KIB: usize = 128 << 10;
/// Interval at which the thread checks whether the channel to the runtime is still open.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// An envelope from a socket.
#[derive(Debug)]
pub(in crate::ingest::sources) struct Received {
    pub endpoint: String,
    pub envelope: Result<Envelope, Rejection>,
    /// Permit for the size of the envelope in KiB. All permits together are [`MAX_KIB`].
    pub permit: OwnedSemaphorePermit,
}

/// The handles of the running thread. The thread ends when `received` is closed or dropped.
#[derive(Debug)]
pub(in crate::ingest::sources) struct Sockets {
    pub received: mpsc::Receiver<Received>,
    pub connections: watch::Receiver<Connections>,
    pub thread: JoinHandle<()>,
}

/// The state of all connections to the endpoints.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(in crate::ingest::sources) struct Connections {
    /// Number of connections that were established since the start. Messages that were published
    /// while an endpoint was not connected were missed.
    pub established: u64,
    /// Whether all endpoints are connected.
    pub all_connected: bool,
}

/// The reason why the fedmsg source cannot be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FedmsgError {
    #[error("cannot subscribe to `{endpoint}`")]
    Subscribe { endpoint: String, source: zmq::Error },
    #[error("cannot start the thread of the fedmsg source")]
    Thread(#[source] std::io::Error),
}

/// Subscribes to all endpoints and starts the thread. ZeroMQ resolves host names and connects in
/// the background. It reconnects whenever a connection is lost.
pub(in crate::ingest::sources) fn start(
    config: &Fedmsg,
    activity: &Arc<Activity>,
    metrics: &Arc<Metrics>,
) -> Result<Sockets, FedmsgError> {
    let context = Context::new();
    let mut endpoints = Vec::new();
    for endpoint in &config.endpoints {
        let cannot = |source| FedmsgError::Subscribe { endpoint: endpoint.address.clone(), source };
        let topics = config.topics.clone();
        endpoints.push(Endpoint::open(&context, endpoint.clone(), topics).map_err(cannot)?);
    }
    let (sender, received) = mpsc::channel(MAX_ENVELOPES);
    let (reporter, connections) = watch::channel(Connections::default());
    let thread = Thread {
        context,
        endpoints,
        sender,
        permits: Arc::new(Semaphore::new(MAX_KIB)),
        connections: reporter,
        activity: Arc::clone(activity),
        metrics: Arc::clone(metrics),
        dropped: LogLimit::default(),
    };
    let thread = std::thread::Builder::new()
        .name("fedmsg".to_owned())
        .spawn(move || thread.run())
        .map_err(FedmsgError::Thread)?;
    Ok(Sockets { received, connections, thread })
}

/// The state of the thread.
struct Thread {
    context: Context,
    endpoints: Vec<Endpoint>,
    sender: mpsc::Sender<Received>,
    permits: Arc<Semaphore>,
    connections: watch::Sender<Connections>,
    activity: Arc<Activity>,
    metrics: Arc<Metrics>,
    dropped: LogLimit,
}

impl Thread {
    fn run(mut self) {
        let timeout =
            i64::try_from(POLL_INTERVAL.as_millis()).expect("the poll interval fits into an i64");
        while !self.sender.is_closed() {
            let mut items: Vec<_> = self.endpoints.iter().flat_map(Endpoint::poll_items).collect();
            let polled = zmq::poll(&mut items, timeout);
            if polled == Err(zmq::Error::EINTR) {
                continue;
            }
            if let Err(error) = polled {
                tracing::warn!("cannot poll the fedmsg sockets: {error}");
                std::thread::sleep(POLL_INTERVAL);
                continue;
            }
            let readable: Vec<bool> = items.iter().map(PollItem::is_readable).collect();
            drop(items);
            for (number, readable) in readable.chunks(2).enumerate() {
                if readable[1] {
                    self.read_monitor(number);
                }
                if readable[0] {
                    self.receive(number);
                }
                self.reconnect_if_idle(number);
            }
        }
    }

    fn receive(&mut self, number: usize) {
        let endpoint = &mut self.endpoints[number];
        let (length, envelope) = match endpoint.receive() {
            Ok(received) => received,
            Err(zmq::Error::EAGAIN | zmq::Error::EINTR) => return,
            Err(error) => {
                return tracing::warn!("cannot receive from `{}`: {error}", endpoint.address());
            }
        };
        let endpoint = endpoint.address().to_owned();
        // A rejected envelope contains no body, so it counts as 1 KiB.
        let kib = if envelope.is_ok() { length / 1024 + 1 } else { 1 };
        let kib = u32::try_from(kib).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.permits).try_acquire_many_owned(kib);
        let is_sent = permit.is_ok_and(|permit| {
            let received = Received { endpoint: endpoint.clone(), envelope, permit };
            self.sender.try_send(received).is_ok() || self.sender.is_closed()
        });
        if !is_sent {
            self.count_dropped(endpoint);
        }
    }

    fn count_dropped(&self, endpoint: String) {
        self.metrics.dropped.get_or_create(&ByEndpoint { endpoint }).inc();
        self.activity.lose(1);
        if let Some(count) = self.dropped.count() {
            tracing::error!("dropped {count} messages: they arrive faster than they are processed");
        }
    }

    /// Reads the changes of a connection from its monitor, and reports them.
    fn read_monitor(&mut self, number: usize) {
        let endpoint = &mut self.endpoints[number];
        let changes = endpoint.read_monitor();
        let established = changes.iter().filter(|link| **link == Link::Connected).count() as u64;
        for link in changes {
            let address = endpoint.address();
            match &link {
                Link::Connected => tracing::info!("connected to `{address}`"),
                Link::Lost(why) => tracing::warn!("not connected to `{address}`: {why}"),
            }
            self.metrics.count_link(address, &link);
            self.activity.set_link(address, link);
        }
        self.report_connections(established);
    }

    fn report_connections(&self, established: u64) {
        let all_connected = self.endpoints.iter().all(Endpoint::is_connected);
        self.connections.send_modify(|connections| {
            let established = connections.established + established;
            *connections = Connections { established, all_connected };
        });
    }

    fn reconnect_if_idle(&mut self, number: usize) {
        let endpoint = &mut self.endpoints[number];
        match endpoint.reconnect_if_idle(&self.context) {
            Ok(false) => (),
            Ok(true) => {
                let address = endpoint.address();
                tracing::warn!(
                    "reconnecting to `{address}`, because no message came within the idle time"
                );
                let label = ByEndpoint { endpoint: address.to_owned() };
                self.metrics.idle_reconnects.get_or_create(&label).inc();
                let link = Link::Lost("no message came within the idle time".to_owned());
                self.metrics.count_link(address, &link);
                self.activity.set_link(address, link);
                self.report_connections(0);
            }
            Err(error) => {
                tracing::error!("cannot subscribe to `{}` again: {error}", endpoint.address());
            }
        }
    }
}
