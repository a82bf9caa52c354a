//! One endpoint of a fedmsg publisher: its SUB socket, and what its monitor tells of the connection.
//!
//! A subscriber never sends, so a connection that died without a word looks like a quiet one. Owns what
//! makes it show: ZMTP heartbeats, TCP keepalive, limits for connecting, and a watchdog that makes the
//! socket anew when nothing came for long. Believes nothing of what it receives. Before it: a publisher;
//! after it: the thread of the source.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use loopabull_fedmsg::{Envelope, Rejection};
use zmq::{Context, PollEvents, PollItem, Socket, SocketEvent, SocketType};

use crate::config;
use crate::observe::activity::Link;

/// The largest frame that ZeroMQ takes, in bytes; a peer that sends a larger one is disconnected.
/// Between this and the parser's limit a body is received, counted and refused.
const MAX_FRAME: i64 = 64 << 20;
/// How many messages ZeroMQ holds for us; the publisher holds, or drops, those beyond. ZeroMQ has no
/// limit to the number of frames of a message, nor to the bytes of all of them.
const HIGH_WATER_MARK: i32 = 16;
/// How long a TCP connection may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long the other side may take to speak ZMTP.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// The first and the longest pause between two tries to connect. The name is resolved for each.
const RECONNECT: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];
/// TCP keepalive after so long, so often, and so many times (fedmsg's own values).
const KEEPALIVE: (i32, i32, i32) = (60, 5, 3);

/// How many monitors there were: each has a name of its own.
static MONITORS: AtomicU64 = AtomicU64::new(0);

/// An endpoint with its socket.
pub(super) struct Endpoint {
    config: config::Endpoint,
    topics: Vec<String>,
    socket: Socket,
    monitor: Socket,
    /// When something came last, or the socket was made.
    heard: Instant,
    /// What the monitor told last.
    is_connected: Option<bool>,
}

impl Endpoint {
    /// Subscribes. The name is resolved and the connection made in the background, again and again.
    pub(super) fn open(
        context: &Context,
        config: config::Endpoint,
        topics: Vec<String>,
    ) -> zmq::Result<Self> {
        let (socket, monitor) = connect(context, &config, &topics)?;
        let heard = Instant::now();
        Ok(Self { config, topics, socket, monitor, heard, is_connected: None })
    }

    pub(super) fn address(&self) -> &str {
        &self.config.address
    }

    pub(super) fn is_connected(&self) -> bool {
        self.is_connected == Some(true)
    }

    /// What has to be waited for: messages, and news of the connection.
    pub(super) fn poll_items(&self) -> [PollItem<'_>; 2] {
        [&self.socket, &self.monitor].map(|socket| socket.as_poll_item(PollEvents::POLLIN))
    }

    /// Receives all frames of one message and takes it apart. Only the first two frames are kept. Returns
    /// how many bytes they have, too.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if there is none.
    pub(super) fn receive(&mut self) -> zmq::Result<(usize, Result<Envelope, Rejection>)> {
        let mut frames = Vec::with_capacity(2);
        let mut count = 0;
        loop {
            // ZeroMQ hands over a multipart message whole: only the first frame can be missing.
            let frame = self.socket.recv_msg(zmq::DONTWAIT)?;
            count += 1;
            if frames.len() < 2 {
                frames.push(frame);
            }
            if !self.socket.get_rcvmore()? {
                self.heard = Instant::now();
                let frames: Vec<&[u8]> = frames.iter().map(|frame| &**frame).collect();
                let length = frames.iter().map(|frame| frame.len()).sum();
                return Ok((length, Envelope::parse(&frames, count)));
            }
        }
    }

    /// Reads what the monitor tells. Returns what has changed of the connection since the last time.
    pub(super) fn news(&mut self) -> Vec<Link> {
        let mut news = Vec::new();
        // zmq_socket_monitor(3): a frame with the number of the event and a value, and the address.
        while let Ok(frames) = self.monitor.recv_multipart(zmq::DONTWAIT) {
            let number = frames.first().and_then(|frame| frame.first_chunk::<2>());
            let Some(number) = number.map(|bytes| u16::from_ne_bytes(*bytes)) else { continue };
            let lost = |why: &str| Link::Lost(why.to_owned());
            let is = |event: SocketEvent| number == event.to_raw();
            let link = if is(SocketEvent::HANDSHAKE_SUCCEEDED) {
                Link::Connected
            } else if is(SocketEvent::DISCONNECTED) {
                lost("the connection was lost")
            } else if is(SocketEvent::HANDSHAKE_FAILED_NO_DETAIL)
                || is(SocketEvent::HANDSHAKE_FAILED_PROTOCOL)
                || is(SocketEvent::HANDSHAKE_FAILED_AUTH)
            {
                lost("the other side does not speak ZMTP, or not in time")
            } else if is(SocketEvent::CONNECT_RETRIED) {
                lost("no connection can be made")
            } else {
                continue;
            };
            let is_connected = Some(link == Link::Connected);
            if is_connected != self.is_connected {
                news.push(link);
            }
            self.is_connected = is_connected;
        }
        news
    }

    /// Makes the socket anew if nothing came for as long as the configuration allows. Tells whether it
    /// did.
    pub(super) fn renew_if_idle(&mut self, context: &Context) -> zmq::Result<bool> {
        let is_idle = self.config.idle.is_some_and(|idle| self.heard.elapsed() >= idle);
        if !is_idle {
            return Ok(false);
        }
        self.heard = Instant::now();
        (self.socket, self.monitor) = connect(context, &self.config, &self.topics)?;
        self.is_connected = Some(false);
        Ok(true)
    }
}

/// Makes a socket with its monitor, and subscribes.
fn connect(
    context: &Context,
    config: &config::Endpoint,
    topics: &[String],
) -> zmq::Result<(Socket, Socket)> {
    let socket = context.socket(SocketType::SUB)?;
    socket.set_maxmsgsize(MAX_FRAME)?;
    socket.set_rcvhwm(HIGH_WATER_MARK)?;
    socket.set_linger(0)?;
    socket.set_connect_timeout(millis(CONNECT_LIMIT))?;
    socket.set_handshake_ivl(millis(HANDSHAKE_LIMIT))?;
    socket.set_reconnect_ivl(millis(RECONNECT[0]))?;
    socket.set_reconnect_ivl_max(millis(RECONNECT[1]))?;
    if let Some(interval) = config.heartbeat {
        socket.set_heartbeat_ivl(millis(interval))?;
        socket.set_heartbeat_timeout(millis(interval))?;
    }
    let (idle, interval, count) = KEEPALIVE;
    socket.set_tcp_keepalive(1)?;
    socket.set_tcp_keepalive_idle(idle)?;
    socket.set_tcp_keepalive_intvl(interval)?;
    socket.set_tcp_keepalive_cnt(count)?;
    for topic in topics {
        socket.set_subscribe(topic.as_bytes())?;
    }
    // Before it connects, so that nothing is missed.
    let number = MONITORS.fetch_add(1, Ordering::Relaxed);
    let place = format!("inproc://monitor-{number}");
    socket.monitor(&place, i32::from(SocketEvent::ALL.to_raw()))?;
    let monitor = context.socket(SocketType::PAIR)?;
    monitor.set_linger(0)?;
    monitor.connect(&place)?;
    socket.connect(&config.address)?;
    Ok((socket, monitor))
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
