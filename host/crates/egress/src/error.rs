//! The reasons why a request was not sent or has no complete response.
//!
//! [`Denied`] describes a request that the grants or the limits forbid. Nothing of such a request leaves this
//! host. [`SendError`] describes any failure, including a denial. The texts of both are stored in the record
//! of the run. Text from a component or from a server is therefore escaped, unless it can contain only safe
//! characters.

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use loopabull_model::{AuthorityError, HttpHost, HttpOrigin};

use crate::address;

/// The reason why a request is denied. Nothing of the request was sent.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Denied {
    #[error(
        "`{origin}` is not granted{}: add \"{origin}\" to http under [grants]",
        warning(origin)
    )]
    NotGranted { origin: HttpOrigin },
    #[error(
        "`{origin}` resolves to `{address}`, which is not public: add \
         {{ url = \"{origin}\", addresses = [\"{address}\"] }} to http under [grants]"
    )]
    Address { origin: HttpOrigin, address: IpAddr },
    #[error("scheme `{scheme}` is neither http nor https")]
    Scheme { scheme: String },
    #[error("`{authority}` is not a valid host with an optional port: {reason}")]
    Authority { authority: String, reason: AuthorityError },
    #[error("target `{target}` is not a path")]
    Target { target: String },
    #[error("method `{method}` is not allowed")]
    Method { method: String },
    #[error("the path and query are longer than {limit} bytes")]
    UriTooLong { limit: usize },
    #[error("the request headers are larger than {limit} bytes")]
    HeaderBytes { limit: usize },
    #[error("the request has more than {limit} headers")]
    HeaderCount { limit: usize },
    #[error("header `content-length` is not a single number")]
    ContentLength,
    #[error("the request body is larger than {limit} bytes")]
    BodyTooLarge { limit: u64 },
    #[error("a run may have at most {limit} requests in progress at once")]
    Concurrent { limit: u16 },
    #[error("a run may make at most {limit} requests")]
    Requests { limit: u16 },
}

/// Returns a warning for an operator who is about to grant an address that is not public. Such an address may
/// belong to this machine or to the metadata service of a cloud.
fn warning(origin: &HttpOrigin) -> &'static str {
    match origin.host {
        HttpHost::Address(address) if !address::is_public(address) => {
            ", and its address is not public"
        }
        _ => "",
    }
}

/// The reason why a request has no response, or why a response has no complete body.
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
    #[error("cannot establish TLS with `{origin}`")]
    Tls { origin: HttpOrigin, source: io::Error },
    #[error("the certificate of `{origin}` is not trusted")]
    Certificate { origin: HttpOrigin, source: io::Error },
    #[error("cannot connect to `{origin}` within {limit:?}")]
    ConnectTimeout { origin: HttpOrigin, limit: Duration },
    #[error("`{origin}` did not begin a response within {limit:?}")]
    FirstByteTimeout { origin: HttpOrigin, limit: Duration },
    #[error("`{origin}` sent no further data within {limit:?}")]
    BetweenBytesTimeout { origin: HttpOrigin, limit: Duration },
    #[error("the exchange with `{origin}` did not finish within {limit:?}")]
    TotalTimeout { origin: HttpOrigin, limit: Duration },
    /// The component aborted the body, or the body failed a check after the response had begun.
    #[error("the request body was not completed")]
    RequestBody { source: Box<dyn Error + Send + Sync> },
    /// The body exceeded the limit while it was being sent. Its length was not known before.
    #[error("the request body is larger than {limit} bytes")]
    RequestBodySize { limit: u64 },
    #[error("the length of the request body differs from its `content-length`")]
    RequestBodyLength,
    #[error("the response head of `{origin}` exceeds {bytes} bytes or {count} headers")]
    ResponseHead { origin: HttpOrigin, bytes: usize, count: usize },
    #[error("the response body of `{origin}` is larger than {limit} bytes")]
    ResponseBody { origin: HttpOrigin, limit: u64 },
    #[error("`{origin}` switched to another protocol")]
    Upgraded { origin: HttpOrigin },
    #[error("`{origin}` closed the connection before the end of the response")]
    Closed { origin: HttpOrigin, source: hyper::Error },
    #[error("the response of `{origin}` is not valid HTTP/1.1")]
    Protocol { origin: HttpOrigin, source: hyper::Error },
}

impl SendError {
    /// Returns the error for a response that is missing or incomplete.
    pub(crate) fn from_broken_response(origin: &HttpOrigin, error: hyper::Error) -> Self {
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
        if is_closed { Self::Closed { origin, source } } else { Self::Protocol { origin, source } }
    }
}

/// The reason why a request body is incomplete or is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestBodyError {
    #[error("the component aborted the body")]
    Component { source: Box<dyn Error + Send + Sync> },
    #[error("the body is larger than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("the length of the body differs from `content-length`")]
    Length,
}

/// Returns external text in a form that is safe in a message: escaped, and truncated after 80 characters.
pub(crate) fn printable(text: &str) -> String {
    let mut printable = text.chars().take(80).collect::<String>().escape_default().to_string();
    if text.chars().nth(80).is_some() {
        printable.push_str("...");
    }
    printable
}
