//! The request body and the response body of an exchange. Both are counted and limited while they stream.
//!
//! A body that exceeds its limit ends in an error, so a truncated body never looks complete.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use loopabull_model::HttpOrigin;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

use crate::error::{RequestBodyError, SendError};
use crate::exchange::Progress;
use crate::limits::EgressLimits;

/// The body of a request. Its trailers are not sent.
#[derive(Debug)]
pub(crate) struct RequestBody<B> {
    inner: Pin<Box<B>>,
    sent: u64,
    limit: u64,
    length: Option<u64>,
    progress: Arc<Progress>,
}

/// The body of a response.
///
/// The body ends in an error in these cases: it exceeds its limit, no data arrives within a timeout, the
/// whole exchange takes too long, or the connection is closed or dropped early.
#[derive(Debug)]
pub struct ResponseBody {
    /// `None` after the end of the body, and after an error.
    incoming: Option<Incoming>,
    origin: HttpOrigin,
    received: u64,
    limit: u64,
    /// Timeout for the next piece of data. Set while a reader waits for it.
    waiting: Option<Pin<Box<Sleep>>>,
    between_bytes: Duration,
    deadline: Pin<Box<Sleep>>,
    total: Duration,
    progress: Arc<Progress>,
    /// Permit for one request in progress. Kept until the end of the body.
    permit: Option<OwnedSemaphorePermit>,
}

impl<B: Body> RequestBody<B> {
    /// Wraps a request body.
    ///
    /// Fails if the length of the body is known and either exceeds the limit or differs from
    /// `content-length`.
    pub(crate) fn new(
        body: B,
        limit: u64,
        length: Option<u64>,
        progress: Arc<Progress>,
    ) -> Result<Self, RequestBodyError> {
        let known = if body.is_end_stream() { Some(0) } else { body.size_hint().exact() };
        if known.is_some_and(|known| known > limit) {
            return Err(RequestBodyError::TooLarge { limit });
        }
        if length.is_some() && known.is_some() && known != length {
            return Err(RequestBodyError::Length);
        }
        Ok(Self { inner: Box::pin(body), sent: 0, limit, length, progress })
    }

    fn fail(
        &self,
        fault: RequestBodyError,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        self.progress.fail_request_body(&fault);
        Poll::Ready(Some(Err(fault)))
    }
}

impl<B> Body for RequestBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let frame = match std::task::ready!(self.inner.as_mut().poll_frame(cx)) {
            Some(Ok(frame)) => frame.into_data().ok(),
            Some(Err(error)) => {
                return self.fail(RequestBodyError::Component { source: error.into() });
            }
            None => None,
        };
        let Some(piece) = frame else {
            let is_short = self.length.is_some_and(|length| self.sent < length);
            return if is_short { self.fail(RequestBodyError::Length) } else { Poll::Ready(None) };
        };
        let sent = self.sent.saturating_add(piece.len() as u64);
        if sent > self.limit {
            let limit = self.limit;
            return self.fail(RequestBodyError::TooLarge { limit });
        }
        if self.length.is_some_and(|length| sent > length) {
            return self.fail(RequestBodyError::Length);
        }
        self.sent = sent;
        self.progress.set_sent(sent);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl ResponseBody {
    pub(crate) fn new(
        incoming: Incoming,
        origin: HttpOrigin,
        limits: &EgressLimits,
        deadline: Instant,
        progress: Arc<Progress>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let permit = (!incoming.is_end_stream()).then_some(permit);
        Self {
            incoming: Some(incoming),
            origin,
            received: 0,
            limit: limits.response_body_bytes,
            waiting: None,
            between_bytes: limits.between_bytes,
            deadline: Box::pin(tokio::time::sleep_until(deadline)),
            total: limits.total,
            progress,
            permit,
        }
    }

    fn end(&mut self) {
        self.incoming = None;
        self.permit = None;
    }

    fn fail(&mut self, error: SendError) -> Poll<Option<Result<Frame<Bytes>, SendError>>> {
        self.end();
        self.progress.fail(&error);
        Poll::Ready(Some(Err(error)))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = SendError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SendError>>> {
        let this = &mut *self;
        let Some(incoming) = this.incoming.as_mut() else {
            return Poll::Ready(None);
        };
        if this.deadline.as_mut().poll(cx).is_ready() {
            let error = SendError::TotalTimeout { origin: this.origin.clone(), limit: this.total };
            return this.fail(error);
        }
        match Pin::new(incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.waiting = None;
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                this.received = this.received.saturating_add(bytes as u64);
                this.progress.set_received(this.received);
                if this.received > this.limit {
                    let origin = this.origin.clone();
                    return this.fail(SendError::ResponseBody { origin, limit: this.limit });
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => this.fail(if this.progress.is_request_broken() {
                SendError::RequestBody { source: error.into() }
            } else {
                SendError::from_broken_response(&this.origin, error)
            }),
            Poll::Ready(None) => {
                this.end();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let limit = this.between_bytes;
                let waiting =
                    this.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
                std::task::ready!(waiting.as_mut().poll(cx));
                let origin = this.origin.clone();
                this.fail(SendError::BetweenBytesTimeout { origin, limit })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}
