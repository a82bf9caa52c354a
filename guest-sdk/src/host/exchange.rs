//! The types of an HTTP exchange: the request and the response that the HTTP client and the host pass to each
//! other.

use std::time::Duration;

use crate::url::Url;

/// A request for the host to send.
pub(crate) struct Outgoing<'a> {
    pub(crate) method: &'a str,
    pub(crate) url: &'a Url,
    pub(crate) headers: &'a [(String, String)],
    pub(crate) body: &'a [u8],
    /// The timeout of the whole exchange, from connecting to the last byte of the response.
    #[cfg_attr(
        not(target_family = "wasm"),
        expect(dead_code, reason = "the stand-in never waits")
    )]
    pub(crate) timeout: Duration,
    pub(crate) max_response_bytes: usize,
}

/// A response from the host.
pub(crate) struct Incoming {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// The reason why a request got no response.
pub(crate) enum SendError {
    /// The exchange failed. A later exchange may succeed.
    Failed(String),
    /// The host does not allow the request.
    #[cfg_attr(
        not(target_family = "wasm"),
        expect(dead_code, reason = "the stand-in allows every request")
    )]
    Refused,
    /// The response is larger than `max_response_bytes`.
    TooLarge,
}
