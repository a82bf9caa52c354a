//! An endpoint of a fedmsg publisher: the SUB socket that receives messages, and the monitor that
//! reports the state of the connection.
//!
//! A subscriber never sends, so it cannot distinguish a dead connection from a silent publisher.
//! This module therefore sets ZMTP heartbeats, TCP keepalive and connect timeouts, and replaces a
//! socket that received no message for the configured idle time. It parses envelopes and does not
//! verify them. The thread of the fedmsg source polls the endpoints.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use loopabull_fedmsg::{Envelope, Rejection};
use zmq::{Context, PollEvents, PollItem, Socket, SocketEvent, SocketType};

use crate::config;
use crate::observe::activity::Link;

/// Maximum size of a frame, in bytes. ZeroMQ disconnects a peer that sends a larger frame. The
/// limit of the parser is lower, so a body between the two limits is received, counted and
/// rejected.
const MAX_FRAME: i64 = 64 << 20;
/// Maximum number of messages in the receive queue of a socket. The publisher queues or drops
/// further messages. The number is small, because ZeroMQ limits neither the number of frames of a
/// message nor their total size.
const HIGH_WATER_MARK: i32 = 16;
/// Timeout for establishing a TCP connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout for the ZMTP handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// First and longest interval between two attempts to connect. Each attempt resolves the host name
/// again.
const RECONNECT_INTERVALS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];
/// TCP keepalive: idle time in seconds, interval in seconds, and number of probes. fedmsg uses
/// these values.
const KEEPALIVE: (i32, i32, i32) = (60, 5, 3);

/// Number of monitors so far, which makes the name of each monitor unique.
static MONITORS: AtomicU64 = AtomicU64::new(0);

/// An endpoint with its socket and the monitor of the socket.
pub(super) struct Endpoint {
    config: config::Endpoint,
    topics: Vec<String>,
    socket: Socket,
    monitor: Socket,
    /// Time at which the last message was received, or at which the socket was created.
    active: Instant,
    /// Whether the endpoint is connected. None before the first report of the monitor.
    is_connected: Option<bool>,
}

impl Endpoint {
    /// Subscribes to an endpoint. ZeroMQ resolves the host name and connects in the background. It
    /// reconnects whenever the connection is lost.
    pub(super) fn open(
        context: &Context,
        config: config::Endpoint,
        topics: Vec<String>,
    ) -> zmq::Result<Self> {
        let (socket, monitor) = connect(context, &config, &topics)?;
        let active = Instant::now();
        Ok(Self { config, topics, socket, monitor, active, is_connected: None })
    }

    pub(super) fn address(&self) -> &str {
        &self.config.address
    }

    pub(super) fn is_connected(&self) -> bool {
        self.is_connected == Some(true)
    }

    /// Returns the poll items of the socket and of its monitor.
    pub(super) fn poll_items(&self) -> [PollItem<'_>; 2] {
        [&self.socket, &self.monitor].map(|socket| socket.as_poll_item(PollEvents::POLLIN))
    }

    /// Receives a message and parses its first two frames. Returns the size of these frames in
    /// bytes, and the envelope.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if no message is available.
    pub(super) fn receive(&mut self) -> zmq::Result<(usize, Result<Envelope, Rejection>)> {
        let mut frames = Vec::with_capacity(2);
        let mut count = 0;
        loop {
            // ZeroMQ delivers a multipart message as a whole, so only the first call can return
            // `EAGAIN`.
            let frame = self.socket.recv_msg(zmq::DONTWAIT)?;
            count += 1;
            if frames.len() < 2 {
                frames.push(frame);
            }
            if !self.socket.get_rcvmore()? {
                self.active = Instant::now();
                let frames: Vec<&[u8]> = frames.iter().map(|frame| &**frame).collect();
                let length = frames.iter().map(|frame| frame.len()).sum();
                return Ok((length, Envelope::parse(&frames, count)));
            }
        }
    }

    /// Reads the monitor. Returns the changes of the connection since the last call.
    pub(super) fn read_monitor(&mut self) -> Vec<Link> {
        let mut changes = Vec::new();
        // Format of zmq_socket_monitor(3): the first frame contains the number and the value of an
        // event, the second frame the address.
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
                lost("the publisher did not complete the ZMTP handshake")
            } else if is(SocketEvent::CONNECT_RETRIED) {
                lost("cannot connect")
            } else {
                continue;
            };
            let is_connected = Some(link == Link::Connected);
            if is_connected != self.is_connected {
                changes.push(link);
            }
            self.is_connected = is_connected;
        }
        changes
    }

    /// Replaces the socket if no message was received for the configured `idle` time. Returns
    /// whether the socket was replaced.
    pub(super) fn reconnect_if_idle(&mut self, context: &Context) -> zmq::Result<bool> {
        let is_idle = self.config.idle.is_some_and(|idle| self.active.elapsed() >= idle);
        if !is_idle {
            return Ok(false);
        }
        self.active = Instant::now();
        (self.socket, self.monitor) = connect(context, &self.config, &self.topics)?;
        self.is_connected = Some(false);
        Ok(true)
    }
}

/// Creates a socket and its monitor, and subscribes to the topics.
fn connect(
    context: &Context,
    config: &config::Endpoint,
    topics: &[String],
) -> zmq::Result<(Socket, Socket)> {
    let socket = context.socket(SocketType::SUB)?;
    socket.set_maxmsgsize(MAX_FRAME)?;
    socket.set_rcvhwm(HIGH_WATER_MARK)?;
    socket.set_linger(0)?;
    // With this option ZeroMQ resolves a name to an IPv6 address if there is one, and tries no IPv4 address.
    socket.set_ipv6(config.is_ipv6())?;
    socket.set_connect_timeout(millis(CONNECT_TIMEOUT))?;
    socket.set_handshake_ivl(millis(HANDSHAKE_TIMEOUT))?;
    socket.set_reconnect_ivl(millis(RECONNECT_INTERVALS[0]))?;
    socket.set_reconnect_ivl_max(millis(RECONNECT_INTERVALS[1]))?;
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
    // The monitor starts before the socket connects, so that it misses no change.
    let number = MONITORS.fetch_add(1, Ordering::Relaxed);
    let address = format!("inproc://monitor-{number}");
    socket.monitor(&address, i32::from(SocketEvent::ALL.to_raw()))?;
    let monitor = context.socket(SocketType::PAIR)?;
    monitor.set_linger(0)?;
    monitor.connect(&address)?;
    socket.connect(&config.address)?;
    Ok((socket, monitor))
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
