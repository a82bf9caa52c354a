//! How much a component may use of HTTP, and for how long.

use std::time::Duration;

/// Limits of each request and of a run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EgressLimits {
    /// How long look-up, connection and TLS may take together. Default: 10 s.
    pub connect: Duration,
    /// How long it may take from the connection to the head of the response, the sending of the
    /// request included. Default: 30 s.
    pub first_byte: Duration,
    /// How long a reader of the body may wait for its next piece. Default: 30 s.
    pub between_bytes: Duration,
    /// How long a request may take from its start to the end of the response's body. Default:
    /// 2 min.
    pub total: Duration,
    /// The longest path with query, in bytes. Default: 8 KiB.
    pub uri_bytes: usize,
    /// The headers of a request or of a response, names and values together, in bytes. Default:
    /// 32 KiB.
    pub header_bytes: usize,
    /// How many headers a request or a response may have. Default: 100.
    pub headers: usize,
    /// The body of a request, in bytes. Default: 8 MiB.
    pub request_body_bytes: u64,
    /// The body of a response, in bytes. Default: 8 MiB.
    pub response_body_bytes: u64,
    /// How many requests of one run may be under way at once. Default: 8.
    pub at_once: u16,
    /// How many requests a run may make, refused ones included. Default: 100.
    pub requests: u16,
}

/// What a component asks for. None, or more than the limit, means the limit; `Duration::ZERO` is
/// over at once.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Timeouts {
    pub connect: Option<Duration>,
    pub first_byte: Option<Duration>,
    pub between_bytes: Option<Duration>,
}

impl EgressLimits {
    /// Returns the limits with the component's timeouts where those are shorter.
    pub(crate) fn with(self, asked: Timeouts) -> Self {
        let shorter = |limit: Duration, asked: Option<Duration>| asked.unwrap_or(limit).min(limit);
        Self {
            connect: shorter(self.connect, asked.connect),
            first_byte: shorter(self.first_byte, asked.first_byte),
            between_bytes: shorter(self.between_bytes, asked.between_bytes),
            ..self
        }
    }
}

impl Default for EgressLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            first_byte: Duration::from_secs(30),
            between_bytes: Duration::from_secs(30),
            total: Duration::from_mins(2),
            uri_bytes: 8 * 1024,
            header_bytes: 32 * 1024,
            headers: 100,
            request_body_bytes: 8 * 1024 * 1024,
            response_body_bytes: 8 * 1024 * 1024,
            at_once: 8,
            requests: 100,
        }
    }
}
