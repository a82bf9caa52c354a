//! The connections of the operator's port and of the socket for commands: their number and their time are limited.
//!
//! Any user of this machine can connect to the port. So idle or slow clients must neither use up the file
//! descriptors that runs need nor keep other clients waiting. A few descriptors are kept in reserve, so
//! that the port answers even if none is left. This module does not know what is served.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::geteuid;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::peer::Peer;

/// Maximum number of connections. A further connection closes the oldest idle one.
const MAX_CONNECTIONS: usize = 64;
/// Number of file descriptors in reserve. Each one lets one connection in while no other is left.
const RESERVE: usize = 4;
/// Maximum size of the head of a request, in bytes.
const MAX_HEAD: usize = 16 << 10;
/// Time limit for the head of a request, and for an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time after which a connection gets no further request.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Time limit for sending the last response of a connection, once it is there.
const LAST_RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between two looks whether it is there.
const LAST_RESPONSE_TICK: Duration = Duration::from_millis(500);
/// Time that a new connection has for its first request before it counts as idle, if no descriptor is left.
const FIRST_REQUEST_TIME: Duration = Duration::from_secs(1);
/// The same time, if there are too many connections. With it, [`MAX_CONNECTIONS`] make room for 640 further ones in a second: 5,000
/// idle clients delay others for some seconds.
const SHORT_REQUEST_TIME: Duration = Duration::from_millis(100);
/// Pause before idle connections are looked for again, if no connection is idle.
const BUSY_PAUSE: Duration = Duration::from_millis(10);
/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener, and what is known of those who connect to it.
pub(super) trait Listen: AsFd + Send + Sync {
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Peer)>> + Send;
}

impl Listen for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Peer)> {
        let (stream, address) = Self::accept(self).await?;
        Ok((stream, Peer::Address(address)))
    }
}

impl Listen for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Peer)> {
        let (stream, _) = Self::accept(self).await?;
        let user = stream.peer_cred()?.uid();
        if user != 0 && user != geteuid().as_raw() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("user {user}")));
        }
        Ok((stream, Peer::User(user)))
    }
}

/// Serves connections until `stop` is cancelled. Then waits for the last responses.
pub(super) async fn serve(listener: impl Listen, router: Router, stop: CancellationToken) {
    let mut connections = Connections::default();
    loop {
        let (stream, peer) = tokio::select! {
            accepted = connections.accept(&listener) => accepted,
            () = stop.cancelled() => break,
        };
        connections.spawn(stream, peer, router.clone(), stop.clone());
    }
    connections.tasks.join_all().await;
}

/// The open connections, and the reserve of file descriptors for a further one.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    /// The clients, oldest first.
    clients: VecDeque<Client>,
    reserve: Vec<File>,
}

/// A connected client.
struct Client {
    accepted_at: Instant,
    /// Cancelled to close the connection, and when the connection has ended.
    close: CancellationToken,
    is_busy: Arc<AtomicBool>,
}

impl Connections {
    /// Accepts a connection. Closes another one if there are too many, or if no file descriptor is left.
    /// When it is dropped, a connection that waits for room is lost, and nothing else.
    async fn accept<L: Listen>(&mut self, listener: &L) -> (L::Stream, Peer) {
        loop {
            self.refill();
            let mut accepted = listener.accept().await;
            while accepted.as_ref().is_err_and(lacks_descriptors)
                && is_waited_at(listener)
                && self.reserve.pop().is_some()
            {
                // The closed descriptor is free for the next attempt.
                accepted = listener.accept().await;
            }
            match accepted {
                Ok(accepted) => {
                    self.make_room().await;
                    return accepted;
                }
                Err(error) => {
                    tracing::debug!("cannot accept a connection on the operator's port: {error}");
                    if lacks_descriptors(&error) && is_waited_at(listener) {
                        self.forget_closed();
                        self.close_oldest(FIRST_REQUEST_TIME);
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Waits until a further connection is allowed, and closes an idle one for it.
    async fn make_room(&mut self) {
        loop {
            self.forget_closed();
            if self.tasks.len() < MAX_CONNECTIONS {
                return;
            }
            self.close_oldest(SHORT_REQUEST_TIME);
            // If all have a request in progress, one of them may soon be idle.
            drop(tokio::time::timeout(BUSY_PAUSE, self.tasks.join_next()).await);
        }
    }

    fn forget_closed(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        self.clients.retain(|client| !client.close.is_cancelled());
    }

    /// Closes the oldest idle connection, if there is one: it is older than `age`, and has no request in progress.
    fn close_oldest(&self, age: Duration) {
        let is_idle = |client: &&Client| {
            !client.is_busy.load(Ordering::Relaxed) && client.accepted_at.elapsed() >= age
        };
        if let Some(client) = self.clients.iter().find(is_idle) {
            client.close.cancel();
        }
    }

    /// Opens descriptors until the reserve is full or the machine has no more.
    fn refill(&mut self) {
        while self.reserve.len() < RESERVE {
            let Ok(file) = File::open("/dev/null") else { return };
            self.reserve.push(file);
        }
    }

    fn spawn(
        &mut self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        peer: Peer,
        router: Router,
        stop: CancellationToken,
    ) {
        let (close, is_busy) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
        self.clients.push_back(Client {
            accepted_at: Instant::now(),
            close: close.clone(),
            is_busy: Arc::clone(&is_busy),
        });
        self.tasks.spawn(async move {
            let _end = close.clone().drop_guard();
            tokio::select! {
                () = serve_connection(stream, peer, router, is_busy, stop) => (),
                () = close.cancelled() => (),
            }
        });
    }
}

fn lacks_descriptors(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// Returns whether a client waits to be accepted. Without a free descriptor accept(2) fails with `EMFILE` whether one
/// waits or not.
fn is_waited_at(listener: &impl AsFd) -> bool {
    let mut events = [PollFd::new(listener, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut events, Some(&at_once)).is_ok_and(|ready| ready > 0)
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: Peer,
    router: Router,
    is_busy: Arc<AtomicBool>,
    stop: CancellationToken,
) {
    let at_work = Arc::clone(&is_busy);
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer);
        let (is_busy, response) = (Arc::clone(&is_busy), router.call(request));
        async move {
            is_busy.store(true, Ordering::Relaxed);
            let response = response.await;
            is_busy.store(false, Ordering::Relaxed);
            response
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = async {
            tokio::select! {
                () = stop.cancelled() => (),
                () = tokio::time::sleep(CONNECTION_TIMEOUT) => (),
            }
        } => {
            connection.as_mut().graceful_shutdown();
            let mut busy_until = Instant::now();
            loop {
                match tokio::time::timeout(LAST_RESPONSE_TICK, connection.as_mut()).await {
                    Ok(ended) => break ended,
                    // An action may take minutes.
                    Err(_) if at_work.load(Ordering::Relaxed) => busy_until = Instant::now(),
                    Err(_) if busy_until.elapsed() >= LAST_RESPONSE_TIMEOUT => break Ok(()),
                    Err(_) => (),
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection to the operator's port failed: {error}");
    }
}
