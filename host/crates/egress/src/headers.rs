//! The headers of a request. This module checks their number and size, and removes headers that concern the
//! connection.
//!
//! The host opens the connection, so only the host sets `host`, `connection` and all other headers about the
//! connection. A request may have at most one `content-length`. With two, a proxy and a server could disagree
//! about the end of the request (request smuggling).

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use loopabull_model::HttpOrigin;

use crate::error::Denied;
use crate::limits::EgressLimits;

/// Headers about the connection, which only the host sets. All `proxy-*` headers are treated in the same way.
const RESERVED: [HeaderName; 9] = [
    header::CONNECTION,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("alt-used"),
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
];

/// Returns the headers to send, and the value of `content-length` in bytes.
///
/// The component's headers about the connection are replaced with those of the host. Fails if the headers are
/// too many or too large, or if `content-length` is invalid or exceeds the limit of the request body.
pub(crate) fn check(
    asked: &HeaderMap,
    origin: &HttpOrigin,
    limits: &EgressLimits,
) -> Result<(HeaderMap, Option<u64>), Denied> {
    if asked.len() > limits.headers {
        return Err(Denied::HeaderCount { limit: limits.headers });
    }
    let bytes: usize = asked.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > limits.header_bytes {
        return Err(Denied::HeaderBytes { limit: limits.header_bytes });
    }
    let length = content_length(asked)?;
    if length.is_some_and(|length| length > limits.request_body_bytes) {
        return Err(Denied::BodyTooLarge { limit: limits.request_body_bytes });
    }
    let host = HeaderValue::from_str(&origin.authority())
        .expect("an origin consists of printable ASCII characters");
    let mut sent = HeaderMap::with_capacity(asked.len() + 2);
    sent.append(header::HOST, host);
    sent.append(header::CONNECTION, HeaderValue::from_static("close"));
    for (name, value) in asked {
        let is_reserved = RESERVED.contains(name) || name.as_str().starts_with("proxy-");
        if !is_reserved && !is_hop_by_hop(asked, name) {
            sent.append(name, value.clone());
        }
    }
    Ok((sent, length))
}

/// Returns whether the header `connection` lists `name` as hop-by-hop.
fn is_hop_by_hop(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.get_all(header::CONNECTION).iter().any(|value| {
        let mut named = value.as_bytes().split(|b| *b == b',');
        named.any(|word| word.trim_ascii().eq_ignore_ascii_case(name.as_str().as_bytes()))
    })
}

fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Denied> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let value = value.to_str().map_err(|_| Denied::ContentLength)?;
    let is_number = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    if !is_number || values.next().is_some() {
        return Err(Denied::ContentLength);
    }
    value.parse().map(Some).map_err(|_| Denied::ContentLength)
}

#[cfg(test)]
mod tests {
    use loopabull_model::HttpScheme;

    use super::*;

    fn try_check(asked: &[(&'static str, &str)]) -> Result<HeaderMap, Denied> {
        let origin = HttpOrigin::parse(HttpScheme::Https, "good.example").unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in asked {
            headers.append(*name, value.parse().unwrap());
        }
        check(&headers, &origin, &EgressLimits::default()).map(|(headers, _)| headers)
    }

    fn check_sent(asked: &[(&'static str, &str)], expected: &[(&str, &str)]) {
        let sent = try_check(asked).unwrap();
        let sent: Vec<_> =
            sent.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        let of_the_host = [("host", "good.example"), ("connection", "close")];
        assert_eq!(sent, of_the_host.iter().chain(expected).copied().collect::<Vec<_>>());
    }

    fn check_denied(asked: &[(&'static str, &str)], expected: Denied) {
        assert_eq!(try_check(asked), Err(expected));
    }

    #[test]
    fn headers_about_the_connection_are_replaced() {
        check_sent(
            &[
                ("host", "evil.example"),
                ("accept", "*/*"),
                ("connection", "keep-alive, X-Hop"),
                ("x-hop", "1"),
                ("keep-alive", "1"),
                ("te", "trailers"),
                ("trailer", "x"),
                ("transfer-encoding", "chunked"),
                ("upgrade", "h2c"),
                ("http2-settings", "x"),
                ("proxy-authorization", "x"),
                ("proxy-connection", "x"),
                ("x-last", "1"),
            ],
            &[("accept", "*/*"), ("x-last", "1")],
        );
    }

    #[test]
    fn repeated_headers_are_kept() {
        let twice = [("accept", "a"), ("accept", "b")];
        check_sent(&twice, &twice);
    }

    #[test]
    fn content_length_must_be_a_single_number() {
        check_sent(&[("content-length", "5")], &[("content-length", "5")]);
        for value in ["5, 5", "+5", " ", "5x", "99999999999999999999"] {
            check_denied(&[("content-length", value)], Denied::ContentLength);
        }
        check_denied(&[("content-length", "5"), ("content-length", "5")], Denied::ContentLength);
    }

    #[test]
    fn sizes_are_limited() {
        let long = "a".repeat(32 * 1024 - 1);
        check_sent(&[("x", &long)], &[("x", &long)]);
        check_denied(&[("xx", &long)], Denied::HeaderBytes { limit: 32 * 1024 });
        check_denied(&[("x", "a"); 101], Denied::HeaderCount { limit: 100 });
        let limit = 8 * 1024 * 1024;
        check_denied(&[("content-length", "8388609")], Denied::BodyTooLarge { limit });
    }
}
