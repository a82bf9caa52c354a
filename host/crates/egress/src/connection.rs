//! One connection for one exchange.
//!
//! This module connects over TCP, establishes TLS if needed, sends one HTTP/1.1 request, and waits for the
//! head of the response. It does not look names up: the module `run` passes in the checked addresses. No
//! connection is used for a second request.

use std::error::Error;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use loopabull_model::{HttpOrigin, HttpScheme};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::body::RequestBody;
use crate::error::{RequestBodyError, SendError};
use crate::limits::EgressLimits;
use crate::tls_roots::TlsRoots;

/// A connection on which the response has begun.
///
/// Poll this future to receive the response body and to send the rest of the request body. The future is
/// ready when both bodies are complete, when either body is dropped, or when the total timeout has expired.
/// If the future is dropped before that, the response body ends in an error.
#[must_use = "the response body arrives only while the connection is polled"]
pub struct Connection(Pin<Box<dyn Future<Output = ()> + Send>>);

/// The transport of a connection: plain TCP or TLS.
pub(crate) type Stream = Either<TcpStream, TlsStream<TcpStream>>;

impl Connection {
    pub(crate) fn new(rest: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Box::pin(rest))
    }
}

impl Future for Connection {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

/// Connects to the first address that accepts. Establishes TLS if the scheme is `https`.
///
/// The remaining time is divided equally among the remaining addresses, so that one address that does not
/// answer leaves time for the others.
pub(crate) async fn connect(
    origin: &HttpOrigin,
    addresses: &[SocketAddr],
    deadline: Instant,
    limit: Duration,
    tls_roots: &TlsRoots,
) -> Result<Stream, SendError> {
    let mut refused = None;
    for (index, address) in addresses.iter().enumerate() {
        let now = Instant::now();
        let remaining = deadline.saturating_duration_since(now);
        if remaining.is_zero() {
            break;
        }
        let share = remaining / u32::try_from(addresses.len() - index).unwrap_or(1);
        match timeout_at(now + share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return secure(origin, stream, tls_roots).await,
            Ok(Err(error)) => refused = Some(error),
            Err(_) => {}
        }
    }
    let origin = origin.clone();
    Err(match refused {
        Some(source) => SendError::Connect { origin, source },
        None => SendError::ConnectTimeout { origin, limit },
    })
}

async fn secure(
    origin: &HttpOrigin,
    stream: TcpStream,
    tls_roots: &TlsRoots,
) -> Result<Stream, SendError> {
    // Without `TCP_NODELAY`, a small request may wait for an acknowledgement. An error is ignored, because
    // the connection also works without the option.
    stream.set_nodelay(true).ok();
    match origin.scheme {
        HttpScheme::Http => Ok(Either::Left(stream)),
        HttpScheme::Https => tls_roots.secure(origin, stream).await.map(Either::Right),
    }
}

/// Sends a request, and waits for the head of its response.
///
/// Returns the response, and the connection, which the caller must poll to transfer the bodies. The
/// connection is `None` if it is already closed.
pub(crate) async fn send<B>(
    origin: &HttpOrigin,
    stream: Stream,
    request: Request<RequestBody<B>>,
    limits: &EgressLimits,
) -> Result<
    (Response<Incoming>, Option<Pin<Box<http1::Connection<TokioIo<Stream>, RequestBody<B>>>>>),
    SendError,
>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let no_response = |error| no_response(origin, error, limits);
    let (mut sender, connection) = http1::Builder::new()
        .max_headers(limits.headers)
        .max_header_size(limits.header_bytes)
        // The minimum is 8 KiB, because hyper panics if the buffer is smaller.
        .max_buf_size(limits.header_bytes.max(8 * 1024))
        .handshake(TokioIo::new(stream))
        .await
        .map_err(no_response)?;
    let mut connection = Box::pin(connection);
    let mut answer = pin!(sender.send_request(request));
    let response = tokio::select! {
        biased;
        response = &mut answer => (response, Some(connection)),
        // When the connection ends, `answer` is ready with the response or with an error.
        _ = &mut connection => (answer.await, None),
    };
    let (response, connection) = (response.0.map_err(no_response)?, response.1);
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(SendError::Upgraded { origin: origin.clone() });
    }
    Ok((response, connection))
}

/// Returns the error for a request that got no response.
fn no_response(origin: &HttpOrigin, error: hyper::Error, limits: &EgressLimits) -> SendError {
    match error.source().and_then(|cause| cause.downcast_ref()) {
        Some(&RequestBodyError::TooLarge { limit }) => return SendError::RequestBodySize { limit },
        Some(RequestBodyError::Length) => return SendError::RequestBodyLength,
        Some(RequestBodyError::Component { .. }) => {
            return SendError::RequestBody { source: error.into() };
        }
        None => {}
    }
    if error.is_parse_too_large() {
        return SendError::ResponseHead {
            origin: origin.clone(),
            bytes: limits.header_bytes,
            count: limits.headers,
        };
    }
    SendError::from_broken_response(origin, error)
}
