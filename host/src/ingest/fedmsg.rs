//! The fedmsg source: ZeroMQ SUB sockets in a thread of their own.
//!
//! Owns the sockets and their limits. Takes envelopes apart where it receives them, so that what is
//! refused is not carried further, and believes nothing. One thread waits for all sockets, so that
//! ZeroMQ never blocks the runtime; when the road behind it is full it waits, and ZeroMQ's own
//! bounded queue fills up.

use std::thread::JoinHandle;
use std::time::Duration;

use loopabull_fedmsg::{Envelope, Rejection};
use tokio::sync::mpsc;
use zmq::{Context, PollEvents, Socket, SocketType};

use crate::config::Fedmsg;

/// The largest frame that ZeroMQ takes, in bytes; a peer that sends a larger one is disconnected.
/// Between this and the parser's limit a body is received, counted and refused.
const MAX_FRAME: i64 = 64 << 20;
/// How many messages ZeroMQ holds for us per endpoint; the publisher holds, or drops, those beyond.
/// ZeroMQ has no limit to the number of frames of a message, nor to the bytes of all of them.
const HIGH_WATER_MARK: i32 = 16;
/// How many messages may be on their way from the thread to the runtime.
const CHANNEL: usize = 16;
/// How often the thread looks whether anybody still wants its messages.
const TICK: Duration = Duration::from_millis(200);

/// What came from a socket.
#[derive(Debug)]
pub struct Received {
    pub endpoint: String,
    pub envelope: Result<Envelope, Rejection>,
}

/// The running source. Ends when the receiver is dropped.
#[derive(Debug)]
pub struct Fedmsgs {
    pub received: mpsc::Receiver<Received>,
    pub thread: JoinHandle<()>,
}

/// Why the source cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("cannot subscribe to `{endpoint}`")]
    Subscribe { endpoint: String, source: zmq::Error },
    #[error("cannot start the thread of the fedmsg source")]
    Thread(#[source] std::io::Error),
}

/// Subscribes to all endpoints. Names are resolved and connections made in the background, again
/// and again.
pub fn start(config: &Fedmsg) -> Result<Fedmsgs, SourceError> {
    let context = Context::new();
    let mut sockets = Vec::new();
    for endpoint in &config.endpoints {
        let socket = subscribe(&context, endpoint, &config.topics)
            .map_err(|source| SourceError::Subscribe { endpoint: endpoint.clone(), source })?;
        sockets.push((endpoint.clone(), socket));
    }
    let (sender, received) = mpsc::channel(CHANNEL);
    let thread = std::thread::Builder::new()
        .name("fedmsg".to_owned())
        .spawn(move || run(&sockets, &sender))
        .map_err(SourceError::Thread)?;
    Ok(Fedmsgs { received, thread })
}

fn subscribe(context: &Context, endpoint: &str, topics: &[String]) -> zmq::Result<Socket> {
    let socket = context.socket(SocketType::SUB)?;
    socket.set_maxmsgsize(MAX_FRAME)?;
    socket.set_rcvhwm(HIGH_WATER_MARK)?;
    socket.set_linger(0)?;
    // A subscriber never sends, so a dead connection shows only by this (fedmsg's own values).
    socket.set_tcp_keepalive(1)?;
    socket.set_tcp_keepalive_idle(60)?;
    socket.set_tcp_keepalive_intvl(5)?;
    socket.set_tcp_keepalive_cnt(3)?;
    for topic in topics {
        socket.set_subscribe(topic.as_bytes())?;
    }
    socket.connect(endpoint)?;
    Ok(socket)
}

fn run(sockets: &[(String, Socket)], sender: &mpsc::Sender<Received>) {
    let tick = i64::try_from(TICK.as_millis()).expect("a tick is short");
    while !sender.is_closed() {
        let mut items: Vec<_> =
            sockets.iter().map(|(_, socket)| socket.as_poll_item(PollEvents::POLLIN)).collect();
        if let Err(error) = zmq::poll(&mut items, tick) {
            tracing::warn!("cannot wait for fedmsg: {error}");
            std::thread::sleep(TICK);
            continue;
        }
        let readable: Vec<bool> = items.iter().map(zmq::PollItem::is_readable).collect();
        for ((endpoint, socket), _) in sockets.iter().zip(readable).filter(|(_, ready)| *ready) {
            match receive(socket) {
                Ok(envelope) => {
                    let received = Received { endpoint: endpoint.clone(), envelope };
                    if sender.blocking_send(received).is_err() {
                        return;
                    }
                }
                Err(zmq::Error::EAGAIN | zmq::Error::EINTR) => (),
                Err(error) => tracing::warn!("cannot receive from `{endpoint}`: {error}"),
            }
        }
    }
}

/// Receives all frames of one message and takes it apart. Only the first two frames are kept.
fn receive(socket: &Socket) -> zmq::Result<Result<Envelope, Rejection>> {
    let mut frames = Vec::with_capacity(2);
    let mut count = 0;
    loop {
        // ZeroMQ hands over a multipart message whole: only the first frame can be missing.
        let frame = socket.recv_msg(zmq::DONTWAIT)?;
        count += 1;
        if frames.len() < 2 {
            frames.push(frame);
        }
        if !socket.get_rcvmore()? {
            let frames: Vec<&[u8]> = frames.iter().map(|frame| &**frame).collect();
            return Ok(Envelope::parse(&frames, count));
        }
    }
}
