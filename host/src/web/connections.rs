//! The connections of the operator's port: their number and their time are limited.
//!
//! Any user of this machine can connect to the port. So idle or slow clients must neither use up the file
//! descriptors that runs need nor keep other clients waiting. A few descriptors are kept in reserve, so
//! that the port answers even if none is left. This module does not know what is served.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Maximum number of connections. A further connection ends the oldest one.
const MAX_CONNECTIONS: usize = 64;
/// Number of file descriptors in reserve. Each one lets one connection in while no other is left.
const RESERVE: usize = 4;
/// Maximum size of the head of a request, in bytes.
const MAX_HEAD: usize = 16 << 10;
/// Time limit for the head of a request, and for an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time after which a connection gets no further request.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Time limit for the last response of a connection that ends.
const LAST_RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// The same for a connection that ends in favour of another one.
const EVICTION_TIMEOUT: Duration = Duration::from_millis(200);
/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves connections until `stop` is cancelled. Then waits for the last responses.
pub(super) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let mut reserve = Reserve::new();
    let mut connections = JoinSet::new();
    // The connections that are not asked to end yet, oldest first.
    let mut evictions: VecDeque<CancellationToken> = VecDeque::new();
    loop {
        let stream = tokio::select! {
            stream = accept(&listener, &mut reserve) => stream,
            () = stop.cancelled() => break,
        };
        while connections.len() >= MAX_CONNECTIONS {
            if let Some(oldest) = evictions.pop_front() {
                oldest.cancel();
            }
            connections.join_next().await;
        }
        evictions.retain(|eviction| !eviction.is_cancelled());
        let evict = CancellationToken::new();
        evictions.push_back(evict.clone());
        let connection = serve_connection(stream, router.clone(), stop.clone(), evict.clone());
        connections.spawn(async move {
            connection.await;
            // The token of a connection that has ended is of no more use.
            evict.cancel();
        });
        while connections.try_join_next().is_some() {}
    }
    connections.join_all().await;
}

/// Accepts a connection. If no file descriptor is left, closes one from the reserve.
async fn accept(listener: &TcpListener, reserve: &mut Reserve) -> TcpStream {
    loop {
        reserve.refill();
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) if lacks_descriptors(&error) && reserve.take() => {
                if let Ok((stream, _)) = listener.accept().await {
                    return stream;
                }
            }
            Err(error) => {
                tracing::debug!("cannot accept a connection on the operator's port: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn lacks_descriptors(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

async fn serve_connection(
    stream: TcpStream,
    router: Router,
    stop: CancellationToken,
    evict: CancellationToken,
) {
    let has_request = Arc::new(AtomicBool::new(false));
    let router = TowerToHyperService::new(router);
    let service = {
        let has_request = Arc::clone(&has_request);
        service_fn(move |request| {
            has_request.store(true, Ordering::Relaxed);
            router.call(request)
        })
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let limit = tokio::select! {
        ended = connection.as_mut() => return log_end(ended),
        () = evict.cancelled() => EVICTION_TIMEOUT,
        () = stop.cancelled() => LAST_RESPONSE_TIMEOUT,
        () = tokio::time::sleep(CONNECTION_TIMEOUT) => LAST_RESPONSE_TIMEOUT,
    };
    if !has_request.load(Ordering::Relaxed) {
        return;
    }
    connection.as_mut().graceful_shutdown();
    if let Ok(ended) = tokio::time::timeout(limit, connection).await {
        log_end(ended);
    }
}

fn log_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!("a connection to the operator's port failed: {error}");
    }
}

/// File descriptors that are kept open, to be closed when no other is left.
struct Reserve(Vec<File>);

impl Reserve {
    fn new() -> Self {
        Self(Vec::with_capacity(RESERVE))
    }

    /// Closes one of the descriptors. Returns false if none is left.
    fn take(&mut self) -> bool {
        self.0.pop().is_some()
    }

    /// Opens descriptors until the reserve is full or the machine has no more.
    fn refill(&mut self) {
        while self.0.len() < RESERVE {
            let Ok(file) = File::open("/dev/null") else { return };
            self.0.push(file);
        }
    }
}
