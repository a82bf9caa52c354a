//! Why a request was not sent, or came to nothing.
//!
//! `Denied` is what the manifest and the limits forbid: nothing left this host. `SendError` is all
//! of it. The texts go into the record of the run, so whatever a component or a server wrote in
//! them is of a safe alphabet or escaped.

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use loopabull_model::{AuthorityError, HttpHost, HttpOrigin};

use crate::address;

/// Why a request is not allowed. Nothing of it was sent.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Denied {
    #[error(
        "`{origin}` is not granted{}: add \"{origin}\" to http under [grants]",
        warning(origin)
    )]
    NotGranted { origin: HttpOrigin },
    #[error(
        "`{origin}` leads to `{address}`, which is not public: add \
         {{ url = \"{origin}\", addresses = [\"{address}\"] }} to http under [grants]"
    )]
    Address { origin: HttpOrigin, address: IpAddr },
    #[error("scheme `{scheme}` is neither http nor https")]
    Scheme { scheme: String },
    #[error("`{authority}` is no host with a port: {reason}")]
    Authority { authority: String, reason: AuthorityError },
    #[error("target `{target}` is no path")]
    Target { target: String },
    #[error("method `{method}` is not sent")]
    Method { method: String },
    #[error("the path is longer than {limit} bytes")]
    UriTooLong { limit: usize },
    #[error("the headers are larger than {limit} bytes")]
    HeaderBytes { limit: usize },
    #[error("there are more than {limit} headers")]
    HeaderCount { limit: usize },
    #[error("header `content-length` is not one number")]
    ContentLength,
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge { limit: u64 },
    #[error("a run makes no more than {limit} requests at once")]
    AtOnce { limit: u16 },
    #[error("a run makes no more than {limit} requests")]
    Requests { limit: u16 },
}

/// Returns what an operator should know before granting an origin: an address that a component came
/// by may be of this machine, or of the cloud's metadata.
fn warning(origin: &HttpOrigin) -> &'static str {
    match origin.host {
        HttpHost::Address(address) if !address::is_public(address) => {
            ", and its address is not public"
        }
        _ => "",
    }
}

/// Why a request has no response, or a response no whole body.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error("cannot look up `{host}`")]
    Resolve { host: String, source: io::Error },
    #[error("`{host}` has no address")]
    NoAddress { host: String },
    #[error("cannot connect to `{origin}`")]
    Connect { origin: HttpOrigin, source: io::Error },
    #[error("cannot speak TLS with `{origin}`")]
    Tls { origin: HttpOrigin, source: io::Error },
    #[error("the certificate of `{origin}` is not trusted")]
    Certificate { origin: HttpOrigin, source: io::Error },
    #[error("`{origin}` was not connected within {limit:?}")]
    ConnectTimeout { origin: HttpOrigin, limit: Duration },
    #[error("`{origin}` began no response within {limit:?}")]
    FirstByteTimeout { origin: HttpOrigin, limit: Duration },
    #[error("`{origin}` sent nothing more within {limit:?}")]
    BetweenBytesTimeout { origin: HttpOrigin, limit: Duration },
    #[error("the exchange with `{origin}` did not end within {limit:?}")]
    TotalTimeout { origin: HttpOrigin, limit: Duration },
    /// The component's own body broke off.
    #[error("the body of the request broke off")]
    RequestBody { source: Box<dyn Error + Send + Sync> },
    /// It was not known to be so large before it was sent.
    #[error("the body of the request is larger than {limit} bytes")]
    RequestBodySize { limit: u64 },
    #[error("the body of the request is not as long as its `content-length`")]
    RequestBodyLength,
    #[error("the head of the response of `{origin}` is larger than {bytes} bytes or {count} lines")]
    ResponseHead { origin: HttpOrigin, bytes: usize, count: usize },
    #[error("the body of the response of `{origin}` is larger than {limit} bytes")]
    ResponseBody { origin: HttpOrigin, limit: u64 },
    #[error("`{origin}` switched to another protocol")]
    Upgraded { origin: HttpOrigin },
    #[error("`{origin}` closed the connection before the end")]
    Closed { origin: HttpOrigin, source: hyper::Error },
    #[error("`{origin}` does not speak HTTP/1.1 as it should")]
    Protocol { origin: HttpOrigin, source: hyper::Error },
}

/// Returns foreign text fit for a message: escaped, and cut after 80 characters.
pub(crate) fn shown(text: &str) -> String {
    let mut shown = text.chars().take(80).collect::<String>().escape_default().to_string();
    if text.chars().nth(80).is_some() {
        shown.push_str("...");
    }
    shown
}

/// Returns an error with its causes in one line.
pub(crate) fn chain(error: &SendError) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}
