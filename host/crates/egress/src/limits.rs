//! The limits on HTTP use: sizes, counts and timeouts.

use std::time::Duration;

/// The limits of each request and of a run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EgressLimits {
    /// Timeout for the name look-up, the connection and the TLS handshake together. Default: 10 s.
    pub connect: Duration,
    /// Timeout from the connection to the head of the response, including the time to send the request.
    /// Default: 30 s.
    pub first_byte: Duration,
    /// Timeout for the next piece of the response body, while a reader waits for it. Default: 30 s.
    pub between_bytes: Duration,
    /// Timeout from the start of a request to the end of its response body. Default: 2 min.
    pub total: Duration,
    /// Maximum length of path and query together, in bytes. Default: 8 KiB.
    pub uri_bytes: usize,
    /// Maximum size of all header names and values of a request or a response together, in bytes. Default: 32
    /// KiB.
    pub header_bytes: usize,
    /// Maximum number of headers of a request or a response. Default: 100.
    pub headers: usize,
    /// Maximum size of a request body, in bytes. Default: 8 MiB.
    pub request_body_bytes: u64,
    /// Maximum size of a response body, in bytes. Default: 8 MiB.
    pub response_body_bytes: u64,
    /// Maximum number of requests of one run that are in progress at the same time. Default: 8.
    pub concurrent: u16,
    /// Maximum number of requests of one run, including denied requests. Default: 100.
    pub requests: u16,
}

/// The timeouts that a component asks for. If a timeout is `None` or longer than the timeout in
/// [`EgressLimits`], the timeout in [`EgressLimits`] applies. `Duration::ZERO` expires at once.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Timeouts {
    pub connect: Option<Duration>,
    pub first_byte: Option<Duration>,
    pub between_bytes: Option<Duration>,
}

impl EgressLimits {
    /// Returns the limits, with the component's timeouts where they are shorter.
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
            concurrent: 8,
            requests: 100,
        }
    }
}
