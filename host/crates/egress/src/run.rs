//! The requests of one run.
//!
//! This module takes each request through its steps, in this order: the limits on the number of requests, the
//! check of the head, the name look-up, the connection, the response. An exchange begins when the component
//! sends a request, and ends when the component has read the response.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::body::{RequestBody, ResponseBody};
use crate::connection::{self, Connection};
use crate::error::{Denied, RequestBodyError, SendError};
use crate::exchange::{Exchange, ExchangeLog, Progress};
use crate::limits::Timeouts;
use crate::policy::Policy;
use crate::request;

/// The HTTP access of one run, and the record of its requests. Cloning is cheap, and clones share the counts.
#[derive(Clone, Debug)]
pub struct RunEgress {
    policy: Arc<Policy>,
    log: Arc<ExchangeLog>,
    concurrent: Arc<Semaphore>,
}

impl RunEgress {
    pub(crate) fn new(policy: Arc<Policy>) -> Self {
        let log = Arc::new(ExchangeLog::new(policy.limits.requests));
        let concurrent = Arc::new(Semaphore::new(usize::from(policy.limits.concurrent)));
        Self { policy, log, concurrent }
    }

    /// Sends a request to the origin in its URI, if the origin is granted.
    ///
    /// Returns the response of the server, which may be a redirect, and the connection. Poll the connection
    /// together with the response body. Bytes of the body count towards `response_body_bytes` when they are
    /// read. The request counts as in progress until the body has ended or is dropped.
    ///
    /// # Errors
    ///
    /// Returns [`SendError::Denied`] if the request is not allowed, before anything is sent. Any other error
    /// names the step that failed.
    pub async fn send<B>(
        &self,
        request: Request<B>,
        timeouts: Timeouts,
    ) -> Result<(Response<ResponseBody>, Connection), SendError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let progress = self.log.begin(&head)?;
        let result = self.exchange(&head, body, timeouts, &progress).await;
        match &result {
            Ok((response, _)) => progress.set_status(response.status().as_u16()),
            Err(error) => progress.fail(error),
        }
        result
    }

    /// Returns the exchanges so far, in the order of their start.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.log.exchanges()
    }

    /// Returns the number of requests that were denied because the run had reached its limit of requests.
    /// These requests are not among the exchanges.
    pub fn requests_over_limit(&self) -> usize {
        self.log.over_limit()
    }

    async fn exchange<B>(
        &self,
        head: &Parts,
        body: B,
        timeouts: Timeouts,
        progress: &Arc<Progress>,
    ) -> Result<(Response<ResponseBody>, Connection), SendError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let permit = self.permit()?;
        let limits = self.policy.limits.with(timeouts);
        let checked = request::check(head, &self.policy.grants, &limits)?;
        let origin = checked.origin;
        let body =
            RequestBody::new(body, limits.request_body_bytes, checked.length, Arc::clone(progress))
                .map_err(refused_body)?;
        let request = checked.head.map(|()| body);

        let begin = Instant::now();
        let deadline = later(begin, limits.total);
        let total_timeout =
            || SendError::TotalTimeout { origin: origin.clone(), limit: limits.total };

        let connect_by = later(begin, limits.connect);
        let connected = async {
            let addresses = self.policy.resolver.resolve(&origin, &self.policy.grants).await?;
            let limit = limits.connect;
            connection::connect(&origin, &addresses, connect_by, limit, &self.policy.tls_roots)
                .await
        };
        let stream = timeout_at(connect_by.min(deadline), connected).await.map_err(|_| {
            let (origin, limit) = (origin.clone(), limits.connect);
            if deadline < connect_by {
                total_timeout()
            } else {
                SendError::ConnectTimeout { origin, limit }
            }
        })??;

        let respond_by = later(Instant::now(), limits.first_byte);
        let sending = connection::send(&origin, stream, request, &limits);
        let (response, rest) =
            timeout_at(respond_by.min(deadline), sending).await.map_err(|_| {
                let (origin, limit) = (origin.clone(), limits.first_byte);
                if deadline < respond_by {
                    total_timeout()
                } else {
                    SendError::FirstByteTimeout { origin, limit }
                }
            })??;

        let connection = Connection::new(async move {
            if let Some(rest) = rest {
                // The error is dropped, because the response body reports it as well.
                timeout_at(deadline, rest).await.ok();
            }
        });
        let response = response.map(|incoming| {
            let progress = Arc::clone(progress);
            ResponseBody::new(incoming, origin.clone(), &limits, deadline, progress, permit)
        });
        Ok((response, connection))
    }

    fn permit(&self) -> Result<OwnedSemaphorePermit, Denied> {
        Arc::clone(&self.concurrent)
            .try_acquire_owned()
            .map_err(|_| Denied::Concurrent { limit: self.policy.limits.concurrent })
    }
}

/// Returns the error for a body that was refused before anything was sent.
fn refused_body(error: RequestBodyError) -> SendError {
    match error {
        RequestBodyError::TooLarge { limit } => Denied::BodyTooLarge { limit }.into(),
        RequestBodyError::Length => SendError::RequestBodyLength,
        RequestBodyError::Component { source } => SendError::RequestBody { source },
    }
}

/// Returns the instant `timeout` after `begin`. Timeouts above a year are reduced to a year, because a longer
/// timeout could overflow.
fn later(begin: Instant, timeout: Duration) -> Instant {
    const YEAR: Duration = Duration::from_hours(24 * 365);
    begin + timeout.min(YEAR)
}
