//! The HTTP exchanges of a run, for the record of the run.
//!
//! This module keeps a list of the exchanges, with room for as many requests as a run may make. While an
//! exchange is in progress, the modules `run` and `body` update its entry in the list.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use http::request::Parts;
use loopabull_model::{Reason, chain};

use crate::error::{self, Denied, RequestBodyError, SendError};

/// Maximum length of a path in a record, in characters. A longer path is truncated and ends with `...`.
const MAX_PATH: usize = 200;

/// One request and its result.
///
/// If an exchange has neither a status nor a failure, the component or the end of the run aborted it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Exchange {
    pub method: String,
    /// Scheme, host and port, escaped, as the component wrote them.
    pub origin: String,
    /// The path without its query, escaped, and truncated after 200 characters.
    pub path: String,
    pub status: Option<u16>,
    pub failure: Option<ExchangeFailure>,
    /// Number of bytes of the request body that were passed to the connection.
    pub sent_bytes: u64,
    /// Number of bytes of the response body that were read.
    pub received_bytes: u64,
}

/// The reason why an exchange is incomplete.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ExchangeFailure {
    /// The request was denied, and nothing was sent.
    Denied(Reason),
    /// The exchange failed. If only the response body failed, the exchange also has a status.
    Failed(Reason),
}

impl fmt::Display for Exchange {
    /// Writes the exchange as one line for the operator.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}: ", self.method, self.origin, self.path)?;
        if let Some(status) = self.status {
            write!(f, "{status}, {} bytes out, {} in", self.sent_bytes, self.received_bytes)?;
        }
        match (&self.failure, self.status) {
            (Some(ExchangeFailure::Denied(reason)), _) => write!(f, "denied: {reason}"),
            (Some(ExchangeFailure::Failed(reason)), None) => write!(f, "failed: {reason}"),
            (Some(ExchangeFailure::Failed(reason)), Some(_)) => write!(f, ", failed: {reason}"),
            (None, Some(_)) => Ok(()),
            (None, None) => f.write_str("aborted"),
        }
    }
}

/// An exchange that may still be in progress.
#[derive(Debug)]
pub(crate) struct Progress {
    method: String,
    origin: String,
    path: String,
    status: OnceLock<u16>,
    failure: OnceLock<ExchangeFailure>,
    /// Whether the exchange failed because of the request body.
    is_request_broken: AtomicBool,
    sent: AtomicU64,
    received: AtomicU64,
}

/// The exchanges of a run, in the order in which they began.
#[derive(Debug)]
pub(crate) struct ExchangeLog {
    begun: AtomicUsize,
    exchanges: Box<[OnceLock<Arc<Progress>>]>,
}

impl ExchangeLog {
    pub(crate) fn new(requests: u16) -> Self {
        let exchanges = (0..requests).map(|_| OnceLock::new()).collect();
        Self { begun: AtomicUsize::new(0), exchanges }
    }

    /// Records that a request begins. Fails if the run has reached its limit of requests.
    pub(crate) fn begin(&self, head: &Parts) -> Result<Arc<Progress>, Denied> {
        let index = self.begun.fetch_add(1, Ordering::Relaxed);
        let Some(entry) = self.exchanges.get(index) else {
            let limit = u16::try_from(self.exchanges.len()).unwrap_or(u16::MAX);
            return Err(Denied::Requests { limit });
        };
        Ok(Arc::clone(entry.get_or_init(|| Arc::new(Progress::new(head)))))
    }

    pub(crate) fn exchanges(&self) -> Vec<Exchange> {
        self.exchanges
            .iter()
            .filter_map(OnceLock::get)
            .map(|progress| progress.snapshot())
            .collect()
    }

    /// Returns the number of requests that were denied because the run had reached its limit of requests.
    pub(crate) fn over_limit(&self) -> usize {
        self.begun.load(Ordering::Relaxed).saturating_sub(self.exchanges.len())
    }
}

impl Progress {
    fn new(head: &Parts) -> Self {
        let scheme = head.uri.scheme_str().unwrap_or_default();
        let authority = head.uri.authority().map_or("", |authority| authority.as_str());
        let mut path: String = head.uri.path().escape_default().take(MAX_PATH).collect();
        if head.uri.path().escape_default().nth(MAX_PATH).is_some() {
            path.push_str("...");
        }
        Self {
            method: error::printable(head.method.as_str()),
            origin: error::printable(&format!("{scheme}://{authority}")),
            path,
            status: OnceLock::new(),
            failure: OnceLock::new(),
            is_request_broken: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
        }
    }

    pub(crate) fn set_status(&self, status: u16) {
        self.status.get_or_init(|| status);
    }

    /// Records an error, unless an earlier error is recorded.
    pub(crate) fn fail(&self, error: &SendError) {
        self.failure.get_or_init(|| match error {
            SendError::Denied(denied) => ExchangeFailure::Denied(Reason::from(denied.to_string())),
            error => ExchangeFailure::Failed(Reason::from(chain(error))),
        });
    }

    /// Records why the request body is incomplete. The connection later reports an error that is less
    /// precise, and that error does not replace this one.
    pub(crate) fn fail_request_body(&self, fault: &RequestBodyError) {
        self.is_request_broken.store(true, Ordering::Release);
        self.failure.get_or_init(|| {
            let reason = format!("the request body was not completed: {fault}");
            ExchangeFailure::Failed(Reason::from(reason))
        });
    }

    pub(crate) fn is_request_broken(&self) -> bool {
        self.is_request_broken.load(Ordering::Acquire)
    }

    pub(crate) fn set_sent(&self, bytes: u64) {
        self.sent.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn set_received(&self, bytes: u64) {
        self.received.store(bytes, Ordering::Relaxed);
    }

    fn snapshot(&self) -> Exchange {
        Exchange {
            method: self.method.clone(),
            origin: self.origin.clone(),
            path: self.path.clone(),
            status: self.status.get().copied(),
            failure: self.failure.get().cloned(),
            sent_bytes: self.sent.load(Ordering::Relaxed),
            received_bytes: self.received.load(Ordering::Relaxed),
        }
    }
}
