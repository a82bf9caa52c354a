//! The connections of the operator's port: their number and their time are limited.
//!
//! Any user of this machine can connect to the port. So idle or slow clients must not use up the file
//! descriptors that runs need. A few descriptors are kept in reserve, so that the port answers even if
//! none is left. This module does not know what is served.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use loopabull_launcher::is_shortage;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Maximum number of connections. Further clients wait until a connection closes.
const MAX_CONNECTIONS: usize = 64;
/// Number of file descriptors in reserve. Each one lets one connection in while no other is left.
const RESERVE: usize = 4;
/// Maximum size of the head of a request, in bytes.
const MAX_HEAD: usize = 16 << 10;
/// Time limit for the head of a request, and for an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time after which a connection gets no further request. A client that reads its response slowly has
/// as much time again.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves connections until `stop` is cancelled. Then waits for the last responses.
pub(super) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut reserve = Reserve::new();
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit.expect("the semaphore is never closed"), accept(&listener, &mut reserve).await)
        };
        let (permit, stream) = tokio::select! {
            accepted = accepted => accepted,
            () = stop.cancelled() => break,
        };
        let (router, stop) = (router.clone(), stop.clone());
        connections.spawn(async move {
            serve_connection(stream, router, stop).await;
            drop(permit);
        });
        while connections.try_join_next().is_some() {}
    }
    connections.join_all().await;
}

/// Accepts a connection. If no file descriptor is left, takes one from the reserve.
async fn accept(listener: &TcpListener, reserve: &mut Reserve) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                reserve.refill();
                return stream;
            }
            Err(error) if is_shortage(&error) && reserve.take() => (),
            Err(error) => {
                tracing::debug!("cannot accept a connection on the operator's port: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, router: Router, stop: CancellationToken) {
    let service = TowerToHyperService::new(router);
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
            tokio::time::timeout(CONNECTION_TIMEOUT, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection to the operator's port failed: {error}");
    }
}

/// File descriptors that are kept open, to be closed when no other is left.
struct Reserve(Vec<File>);

impl Reserve {
    fn new() -> Self {
        let mut reserve = Self(Vec::with_capacity(RESERVE));
        reserve.refill();
        reserve
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
