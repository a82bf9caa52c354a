//! What a run asked of the network, for its record.
//!
//! Owns the list of a run's exchanges, which is as long as a run may make requests. Each is
//! written to from the side while it goes on: by the request, by its body, by the response's.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use http::request::Parts;
use loopabull_model::Reason;

use crate::body::BodyFault;
use crate::error::{self, Denied, SendError};

/// The longest path in a record, in characters; the rest is cut, with a mark.
const MAX_PATH: usize = 200;

/// One request and what came of it.
///
/// With neither status nor trouble it was cut off, by the end of the run or by the component.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Exchange {
    pub method: String,
    /// Scheme, host and port as the component wrote them, escaped.
    pub origin: String,
    /// The path without its query, escaped and cut after 200 characters.
    pub path: String,
    pub status: Option<u16>,
    pub trouble: Option<Trouble>,
    /// Bytes of the request's body that were taken for sending.
    pub sent_bytes: u64,
    /// Bytes of the response's body that were read.
    pub received_bytes: u64,
}

/// Why an exchange did not come to its end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Trouble {
    /// Nothing was sent.
    Denied(Reason),
    /// It failed on its way. There is a status if it was the body of the response.
    Failed(Reason),
}

impl fmt::Display for Exchange {
    /// Tells the exchange in one line, for a person.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}: ", self.method, self.origin, self.path)?;
        if let Some(status) = self.status {
            write!(f, "{status}, {} bytes out, {} in", self.sent_bytes, self.received_bytes)?;
        }
        match (&self.trouble, self.status) {
            (Some(Trouble::Denied(reason)), _) => write!(f, "denied: {reason}"),
            (Some(Trouble::Failed(reason)), None) => write!(f, "failed: {reason}"),
            (Some(Trouble::Failed(reason)), Some(_)) => write!(f, ", failed: {reason}"),
            (None, Some(_)) => Ok(()),
            (None, None) => f.write_str("cut off"),
        }
    }
}

/// An exchange that may still go on.
#[derive(Debug)]
pub(crate) struct Progress {
    method: String,
    origin: String,
    path: String,
    status: OnceLock<u16>,
    trouble: OnceLock<Trouble>,
    /// Whether the trouble is the request's own body.
    is_request_broken: AtomicBool,
    sent: AtomicU64,
    received: AtomicU64,
}

/// The exchanges of a run, in the order of their beginning.
#[derive(Debug)]
pub(crate) struct Ledger {
    begun: AtomicUsize,
    exchanges: Box<[OnceLock<Arc<Progress>>]>,
}

impl Ledger {
    pub(crate) fn new(requests: u16) -> Self {
        let exchanges = (0..requests).map(|_| OnceLock::new()).collect();
        Self { begun: AtomicUsize::new(0), exchanges }
    }

    /// Notes that a request begins, unless the run had all of its requests.
    pub(crate) fn begin(&self, head: &Parts) -> Result<Arc<Progress>, Denied> {
        let index = self.begun.fetch_add(1, Ordering::Relaxed);
        let Some(place) = self.exchanges.get(index) else {
            let limit = u16::try_from(self.exchanges.len()).unwrap_or(u16::MAX);
            return Err(Denied::Requests { limit });
        };
        Ok(Arc::clone(place.get_or_init(|| Arc::new(Progress::new(head)))))
    }

    pub(crate) fn exchanges(&self) -> Vec<Exchange> {
        self.exchanges.iter().filter_map(OnceLock::get).map(|progress| progress.so_far()).collect()
    }

    pub(crate) fn beyond(&self) -> usize {
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
            method: error::shown(head.method.as_str()),
            origin: error::shown(&format!("{scheme}://{authority}")),
            path,
            status: OnceLock::new(),
            trouble: OnceLock::new(),
            is_request_broken: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
        }
    }

    pub(crate) fn answered(&self, status: u16) {
        self.status.get_or_init(|| status);
    }

    /// Keeps the first error.
    pub(crate) fn failed(&self, error: &SendError) {
        self.trouble.get_or_init(|| match error {
            SendError::Denied(denied) => Trouble::Denied(Reason::from(denied.to_string())),
            error => Trouble::Failed(Reason::from(error::chain(error))),
        });
    }

    /// Keeps why the body of the request broke off; what the connection tells of it is less.
    pub(crate) fn request_broke(&self, fault: &BodyFault) {
        self.is_request_broken.store(true, Ordering::Release);
        self.trouble.get_or_init(|| {
            Trouble::Failed(Reason::from(format!("the body of the request broke off: {fault}")))
        });
    }

    pub(crate) fn is_request_broken(&self) -> bool {
        self.is_request_broken.load(Ordering::Acquire)
    }

    pub(crate) fn sent(&self, bytes: u64) {
        self.sent.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, bytes: u64) {
        self.received.store(bytes, Ordering::Relaxed);
    }

    fn so_far(&self) -> Exchange {
        Exchange {
            method: self.method.clone(),
            origin: self.origin.clone(),
            path: self.path.clone(),
            status: self.status.get().copied(),
            trouble: self.trouble.get().cloned(),
            sent_bytes: self.sent.load(Ordering::Relaxed),
            received_bytes: self.received.load(Ordering::Relaxed),
        }
    }
}
