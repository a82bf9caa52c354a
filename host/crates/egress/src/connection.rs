//! One connection for one exchange.
//!
//! Owns the way from checked addresses to the head of a response: TCP, TLS, HTTP/1.1. It gets
//! addresses, never names, and uses each connection once.

use std::error::Error;
use std::io;
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

use crate::body::{BodyFault, RequestBody};
use crate::error::SendError;
use crate::limits::EgressLimits;
use crate::trust::Trust;

/// A connection that has answered; it must be polled for the body of the response to arrive, and
/// for what is left of the request's to be sent.
///
/// Done when both are through, when either is dropped, or at the end of the exchange's time.
/// Dropped before, it breaks the body of the response off with an error.
#[must_use = "a connection that is not polled brings no body"]
pub struct Connection(Pin<Box<dyn Future<Output = ()> + Send>>);

/// What a connection goes over.
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

/// Connects to the first address that answers, and speaks TLS if the origin is one of https.
///
/// Each address gets its share of the time that is left, so that a silent one does not use up
/// what the next would need.
pub(crate) async fn connect(
    origin: &HttpOrigin,
    addresses: &[SocketAddr],
    deadline: Instant,
    limit: Duration,
    trust: &Trust,
) -> Result<Stream, SendError> {
    let mut refused = None;
    for (index, address) in addresses.iter().enumerate() {
        let now = Instant::now();
        let left = deadline.saturating_duration_since(now);
        if left.is_zero() {
            break;
        }
        let share = left / u32::try_from(addresses.len() - index).unwrap_or(1);
        match timeout_at(now + share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return secure(origin, stream, trust).await,
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
    trust: &Trust,
) -> Result<Stream, SendError> {
    // Without it a small request may wait for an acknowledgement; it works without, too.
    stream.set_nodelay(true).ok();
    match origin.scheme {
        HttpScheme::Http => Ok(Either::Left(stream)),
        HttpScheme::Https => trust.secure(origin, stream).await.map(Either::Right),
    }
}

/// Sends a request and waits for the head of its response.
///
/// Returns the response and what is left to do on the connection, until which body and request go
/// on; none if it is over.
pub(crate) async fn ask<B>(
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
    let unanswered = |error| unanswered(origin, error, limits);
    let (mut sender, connection) = http1::Builder::new()
        .max_headers(limits.headers)
        .max_header_size(limits.header_bytes)
        // Hyper panics below 8 KiB.
        .max_buf_size(limits.header_bytes.max(8 * 1024))
        .handshake(TokioIo::new(stream))
        .await
        .map_err(unanswered)?;
    let mut connection = Box::pin(connection);
    let mut answer = pin!(sender.send_request(request));
    let response = tokio::select! {
        biased;
        response = &mut answer => (response, Some(connection)),
        // Whatever it ended with, the answer is there or its error is.
        _ = &mut connection => (answer.await, None),
    };
    let (response, connection) = (response.0.map_err(unanswered)?, response.1);
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(SendError::Upgraded { origin: origin.clone() });
    }
    Ok((response, connection))
}

/// Returns why a request got no response.
fn unanswered(origin: &HttpOrigin, error: hyper::Error, limits: &EgressLimits) -> SendError {
    match error.source().and_then(|cause| cause.downcast_ref()) {
        Some(&BodyFault::TooLarge { limit }) => return SendError::RequestBodySize { limit },
        Some(BodyFault::Length) => return SendError::RequestBodyLength,
        Some(BodyFault::Component { .. }) => {
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
    broken(origin, error)
}

/// Returns why a response came to no end.
pub(crate) fn broken(origin: &HttpOrigin, error: hyper::Error) -> SendError {
    let cause = error.source().and_then(|cause| cause.downcast_ref()).map(io::Error::kind);
    let is_closed = error.is_incomplete_message()
        || error.is_closed()
        || error.is_canceled()
        || matches!(
            cause,
            Some(
                io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::BrokenPipe
            )
        );
    let (origin, source) = (origin.clone(), error);
    if is_closed {
        SendError::Closed { origin, source }
    } else {
        SendError::Protocol { origin, source }
    }
}
