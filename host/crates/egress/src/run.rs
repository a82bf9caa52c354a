//! The requests of one run.
//!
//! Owns the order of the checks and of the limits: count, head, look-up, connection, response.
//! Comes after the component's own request and before its reading of the response.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::body::{BodyFault, RequestBody, ResponseBody};
use crate::connection::{self, Connection};
use crate::error::{Denied, SendError};
use crate::exchange::{Exchange, Ledger, Progress};
use crate::limits::Timeouts;
use crate::{Policy, request};

/// What one run may send, and what it sent. Cheap to clone; clones share the counts.
#[derive(Clone, Debug)]
pub struct RunEgress {
    policy: Arc<Policy>,
    ledger: Arc<Ledger>,
    at_once: Arc<Semaphore>,
}

impl RunEgress {
    pub(crate) fn new(policy: Arc<Policy>) -> Self {
        let ledger = Arc::new(Ledger::new(policy.limits.requests));
        let at_once = Arc::new(Semaphore::new(usize::from(policy.limits.at_once)));
        Self { policy, ledger, at_once }
    }

    /// Sends a request to the origin that its URI names, if that is granted.
    ///
    /// Returns the response as the server gave it, redirects too, with the connection that must be
    /// polled beside its body. The body counts against `response_body_bytes` as it is read. The
    /// request counts as under way until the body is at its end or dropped.
    ///
    /// Fails without sending anything with `Denied`; otherwise with what went wrong on the way.
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
        let progress = self.ledger.begin(&head)?;
        let result = self.exchange(&head, body, timeouts, &progress).await;
        match &result {
            Ok((response, _)) => progress.answered(response.status().as_u16()),
            Err(error) => progress.failed(error),
        }
        result
    }

    /// Returns the exchanges so far, in the order of their beginning.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.ledger.exchanges()
    }

    /// Returns how many requests were refused because the run had made all that it may; those are
    /// no exchanges.
    pub fn requests_beyond_limit(&self) -> usize {
        self.ledger.beyond()
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
                .map_err(refused)?;
        let request = checked.head.map(|()| body);

        let begin = Instant::now();
        let deadline = later(begin, limits.total);
        let too_long = || SendError::TotalTimeout { origin: origin.clone(), limit: limits.total };

        let connect_by = later(begin, limits.connect);
        let connected = async {
            let addresses = self.policy.resolver.resolve(&origin, &self.policy.grants).await?;
            let limit = limits.connect;
            connection::connect(&origin, &addresses, connect_by, limit, &self.policy.trust).await
        };
        let stream = timeout_at(connect_by.min(deadline), connected).await.map_err(|_| {
            let (origin, limit) = (origin.clone(), limits.connect);
            if deadline < connect_by {
                too_long()
            } else {
                SendError::ConnectTimeout { origin, limit }
            }
        })??;

        let answer_by = later(Instant::now(), limits.first_byte);
        let asked = connection::ask(&origin, stream, request, &limits);
        let (response, rest) =
            timeout_at(answer_by.min(deadline), asked).await.map_err(|_| {
                let (origin, limit) = (origin.clone(), limits.first_byte);
                if deadline < answer_by {
                    too_long()
                } else {
                    SendError::FirstByteTimeout { origin, limit }
                }
            })??;

        let connection = Connection::new(async move {
            if let Some(rest) = rest {
                // Its error is the body's as well, which is where it is read.
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
        Arc::clone(&self.at_once)
            .try_acquire_owned()
            .map_err(|_| Denied::AtOnce { limit: self.policy.limits.at_once })
    }
}

fn refused(fault: BodyFault) -> SendError {
    match fault {
        BodyFault::TooLarge { limit } => Denied::BodyTooLarge { limit }.into(),
        BodyFault::Length => SendError::RequestBodyLength,
        BodyFault::Component { source } => SendError::RequestBody { source },
    }
}

/// Returns the time after a pause, or a year from now if the pause is endless.
fn later(begin: Instant, pause: Duration) -> Instant {
    const YEAR: Duration = Duration::from_hours(24 * 365);
    begin + pause.min(YEAR)
}
