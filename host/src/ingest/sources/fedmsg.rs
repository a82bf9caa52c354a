//! The fedmsg source: ZeroMQ SUB sockets in a thread of their own.
//!
//! Takes envelopes apart where it receives them, so that what is refused is not carried further, and
//! believes nothing. One thread waits for all sockets, so that ZeroMQ never blocks the runtime. What is
//! on its way to the runtime is bounded in number and bytes; what comes beyond is dropped and counted:
//! a publisher would drop it too, and nobody would know. Before it on the path of a message: a
//! publisher; after it: [`Ingest`](crate::ingest::Ingest).

mod endpoint;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use loopabull_fedmsg::{Envelope, Rejection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use zmq::{Context, PollItem};

use crate::config::Fedmsg;
use crate::ingest::sources::fedmsg::endpoint::Endpoint;
use crate::observe::activity::{Activity, Link};
use crate::observe::metrics::{Metrics, OfEndpoint};

/// How many messages may be on their way from the thread to the runtime.
const CHANNEL: usize = 4096;
/// How many KiB they may have together.
const BACKLOG: usize = 64 << 10;
/// How often the thread looks whether anybody still wants its messages.
const TICK: Duration = Duration::from_millis(200);
/// How often the log tells of messages that were dropped.
const QUIET: Duration = Duration::from_mins(1);

/// What came from a socket.
#[derive(Debug)]
pub(crate) struct Received {
    pub endpoint: String,
    pub envelope: Result<Envelope, Rejection>,
    /// Its part of what may be on its way.
    _room: OwnedSemaphorePermit,
}

/// The running source. Ends when the receiver is dropped.
#[derive(Debug)]
pub(crate) struct Fedmsgs {
    pub received: mpsc::Receiver<Received>,
    /// What became of the connections.
    pub links: watch::Receiver<Links>,
    pub thread: JoinHandle<()>,
}

/// What became of all connections together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Links {
    /// How many were made since the start. What was sent before each of them was missed.
    pub made: u64,
    /// Whether all stand.
    pub all_stand: bool,
}

/// Why the source cannot be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("cannot subscribe to `{endpoint}`")]
    Subscribe { endpoint: String, source: zmq::Error },
    #[error("cannot start the thread of the fedmsg source")]
    Thread(#[source] std::io::Error),
}

/// Subscribes to all endpoints. Names are resolved and connections made in the background, again
/// and again.
pub(crate) fn start(
    config: &Fedmsg,
    activity: &Arc<Activity>,
    metrics: &Arc<Metrics>,
) -> Result<Fedmsgs, SourceError> {
    let context = Context::new();
    let mut endpoints = Vec::new();
    for endpoint in &config.endpoints {
        let cannot = |source| SourceError::Subscribe { endpoint: endpoint.address.clone(), source };
        let topics = config.topics.clone();
        endpoints.push(Endpoint::open(&context, endpoint.clone(), topics).map_err(cannot)?);
    }
    let (sender, received) = mpsc::channel(CHANNEL);
    let room = Arc::new(Semaphore::new(BACKLOG));
    let (tell, links) = watch::channel(Links::default());
    let (activity, metrics) = (Arc::clone(activity), Arc::clone(metrics));
    let thread =
        Thread { context, endpoints, sender, room, tell, activity, metrics, dropped: None };
    let thread = std::thread::Builder::new()
        .name("fedmsg".to_owned())
        .spawn(move || thread.run())
        .map_err(SourceError::Thread)?;
    Ok(Fedmsgs { received, links, thread })
}

/// What the thread has.
struct Thread {
    context: Context,
    endpoints: Vec<Endpoint>,
    sender: mpsc::Sender<Received>,
    room: Arc<Semaphore>,
    tell: watch::Sender<Links>,
    activity: Arc<Activity>,
    metrics: Arc<Metrics>,
    /// How many were dropped since the log told of it, and when that was.
    dropped: Option<(u64, Instant)>,
}

impl Thread {
    fn run(mut self) {
        let tick = i64::try_from(TICK.as_millis()).expect("a tick is short");
        while !self.sender.is_closed() {
            let mut items: Vec<_> = self.endpoints.iter().flat_map(Endpoint::poll_items).collect();
            let polled = zmq::poll(&mut items, tick);
            if polled == Err(zmq::Error::EINTR) {
                continue;
            }
            if let Err(error) = polled {
                tracing::warn!("cannot wait for fedmsg: {error}");
                std::thread::sleep(TICK);
                continue;
            }
            let readable: Vec<bool> = items.iter().map(PollItem::is_readable).collect();
            drop(items);
            for (number, readable) in readable.chunks(2).enumerate() {
                if readable[1] {
                    self.tell_news(number);
                }
                if readable[0] {
                    self.receive(number);
                }
                self.renew_if_idle(number);
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
        // What was refused is not carried further.
        let kib = if envelope.is_ok() { length / 1024 + 1 } else { 1 };
        let kib = u32::try_from(kib).unwrap_or(u32::MAX);
        let is_taken = Arc::clone(&self.room).try_acquire_many_owned(kib).is_ok_and(|room| {
            let received = Received { endpoint: endpoint.clone(), envelope, _room: room };
            self.sender.try_send(received).is_ok() || self.sender.is_closed()
        });
        if !is_taken {
            self.drop_one(endpoint);
        }
    }

    /// Counts a message that nobody can take now.
    fn drop_one(&mut self, endpoint: String) {
        self.metrics.dropped.get_or_create(&OfEndpoint { endpoint }).inc();
        let (count, told) = self.dropped.unwrap_or((0, Instant::now()));
        let is_due = self.dropped.is_none() || told.elapsed() >= QUIET;
        self.dropped = Some(if is_due { (0, Instant::now()) } else { (count + 1, told) });
        if is_due {
            let count = count + 1;
            tracing::error!("{count} messages were dropped: more come than can be taken");
        }
    }

    fn tell_news(&mut self, number: usize) {
        let endpoint = &mut self.endpoints[number];
        let news = endpoint.news();
        let made = news.iter().filter(|link| **link == Link::Connected).count() as u64;
        for link in news {
            let address = endpoint.address();
            match &link {
                Link::Connected => tracing::info!("connected to `{address}`"),
                Link::Lost(why) => tracing::warn!("not connected to `{address}`: {why}"),
            }
            self.metrics.count_link(address, &link);
            self.activity.set_link(address, link);
        }
        self.tell_links(made);
    }

    fn tell_links(&self, made: u64) {
        let all_stand = self.endpoints.iter().all(Endpoint::is_connected);
        self.tell.send_modify(|links| *links = Links { made: links.made + made, all_stand });
    }

    fn renew_if_idle(&mut self, number: usize) {
        let endpoint = &mut self.endpoints[number];
        match endpoint.renew_if_idle(&self.context) {
            Ok(false) => (),
            Ok(true) => {
                let address = endpoint.address();
                tracing::warn!("nothing came from `{address}` for long: connecting anew");
                let label = OfEndpoint { endpoint: address.to_owned() };
                self.metrics.renewed.get_or_create(&label).inc();
                self.activity.set_link(address, Link::Lost("nothing came for long".to_owned()));
                self.tell_links(0);
            }
            Err(error) => {
                tracing::error!("cannot subscribe to `{}` again: {error}", endpoint.address());
            }
        }
    }
}
