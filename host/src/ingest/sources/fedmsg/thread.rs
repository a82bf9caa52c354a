//! The thread of the fedmsg source, which polls the SUB sockets.
//!
//! It parses envelopes as it receives them and verifies nothing. ZeroMQ never blocks the runtime,
//! because one thread polls all sockets. Owns the limits in number and bytes for envelopes on their way
//! to the runtime. An envelope beyond them is dropped and counted; otherwise the publisher would drop
//! it, and nobody would know. Before it on the path of a message: a publisher. After it: the part that
//! verifies.

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

/// The maximum number of envelopes on their way to the runtime.
const MAX_ENVELOPES: usize = 4096;
/// The maximum size of all of them, in KiB.
const MAX_KIB: usize = 64 << 10;
/// How often the thread checks whether the runtime still receives.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// An envelope from a socket.
#[derive(Debug)]
pub(in crate::ingest::sources) struct Received {
    pub endpoint: String,
    pub envelope: Result<Envelope, Rejection>,
    /// Its share of [`MAX_KIB`].
    pub permit: OwnedSemaphorePermit,
}

/// The running thread. It ends when the receiver is dropped.
#[derive(Debug)]
pub(in crate::ingest::sources) struct Sockets {
    pub received: mpsc::Receiver<Received>,
    pub connections: watch::Receiver<Connections>,
    pub thread: JoinHandle<()>,
}

/// The state of all connections together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(in crate::ingest::sources) struct Connections {
    /// How many connections were established since the start. Messages that were published before each
    /// of them were missed.
    pub established: u64,
    /// Whether all endpoints are connected.
    pub all_connected: bool,
}

/// Why the fedmsg source cannot be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FedmsgError {
    #[error("cannot subscribe to `{endpoint}`")]
    Subscribe { endpoint: String, source: zmq::Error },
    #[error("cannot start the thread of the fedmsg source")]
    Thread(#[source] std::io::Error),
}

/// Subscribes to all endpoints and starts the thread. Names are resolved and connections established
/// in the background, and again after each loss.
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
        let timeout = i64::try_from(POLL_INTERVAL.as_millis()).expect("the interval is short");
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
        // A rejected envelope is passed on without its body.
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
        if let Some(count) = self.dropped.count() {
            tracing::error!("dropped {count} messages: they arrive faster than they are processed");
        }
    }

    /// Reports what the monitor of an endpoint says about its connection.
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
                tracing::warn!("received nothing from `{address}` for too long: reconnecting");
                let label = ByEndpoint { endpoint: address.to_owned() };
                self.metrics.renewed.get_or_create(&label).inc();
                let link = Link::Lost("nothing was received for too long".to_owned());
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
