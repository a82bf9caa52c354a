//! The HTTP client of datagrepper requests single pages of a search.
//!
//! The client builds the URL of a page, limits the size of the response, and splits the response
//! into messages. It does not parse the messages.

use std::net::IpAddr;

use bytes::Bytes;
use http::uri::{InvalidUri, Scheme};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use loopabull_egress::{Egress, EgressLimits, SendError, Timeouts, TlsRoots};
use loopabull_model::{AddressBlock, HttpGrant, HttpGrantError};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::ingest::sources::datagrepper::progress::Search;

/// Maximum size of a response, in bytes: the size of 100 of the largest known messages.
const MAX_PAGE_BYTES: u64 = 64 << 20;

/// The HTTP client of one datagrepper.
pub(super) struct Client {
    /// URL without a trailing slash.
    url: String,
    egress: Egress,
}

/// A page of messages: the response of `/v2/search`.
#[derive(Deserialize)]
pub(super) struct Page {
    pub raw_messages: Vec<Box<RawValue>>,
    /// Number of pages of the search.
    pub pages: u32,
    /// Number of messages that the search found, on all pages.
    pub total: u64,
}

/// The reason why a URL cannot be used for datagrepper.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UrlError {
    #[error("the URL is invalid")]
    Invalid(#[from] InvalidUri),
    #[error("the URL has no scheme or no host")]
    NoOrigin,
    #[error("the URL cannot be requested")]
    Grant(#[from] HttpGrantError),
    #[error("the URL is not HTTPS, so anyone on the network could start tasks")]
    Plaintext,
}

/// The reason why a page could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("cannot build a request for datagrepper")]
    Request(#[source] http::Error),
    #[error(transparent)]
    Send(#[from] SendError),
    #[error("datagrepper responded with status {status}")]
    Status { status: StatusCode },
    #[error("the response of datagrepper is incomplete")]
    Incomplete(#[source] SendError),
    #[error("the response of datagrepper is not a page of messages")]
    Format(#[source] serde_json::Error),
}

impl UrlError {
    /// Returns a hint for the operator.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Plaintext => "use https, or list the addresses of the host under `addresses`",
            _ => "set `url` to a URL such as https://apps.fedoraproject.org/datagrepper",
        }
    }
}

impl ClientError {
    /// Returns whether a response arrived but cannot be read. A message in the response may be the
    /// cause.
    pub(super) fn is_unreadable(&self) -> bool {
        matches!(self, Self::Incomplete(_) | Self::Format(_))
    }
}

impl Client {
    /// Creates a client. `addresses` are the non-public addresses to which the host name may
    /// resolve.
    ///
    /// # Errors
    ///
    /// If the URL is invalid, or if it is plain HTTP to a host name without configured addresses.
    pub(super) fn new(
        url: &str,
        addresses: &[AddressBlock],
        tls_roots: TlsRoots,
    ) -> Result<Self, UrlError> {
        let uri: Uri = url.parse()?;
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err(UrlError::NoOrigin);
        };
        let mut grant: HttpGrant = format!("{scheme}://{authority}").parse()?;
        grant.addresses = addresses.to_vec();
        let is_known = !addresses.is_empty() || authority.host().parse::<IpAddr>().is_ok();
        if scheme == &Scheme::HTTP && !is_known {
            return Err(UrlError::Plaintext);
        }
        let limits =
            EgressLimits { response_body_bytes: MAX_PAGE_BYTES, ..EgressLimits::default() };
        let egress = Egress::new(vec![grant], limits, tls_roots);
        Ok(Self { url: url.trim_end_matches('/').to_owned(), egress })
    }

    /// Requests the next page of a search.
    ///
    /// # Errors
    ///
    /// If there is no response, or the response is not a page.
    pub(super) async fn page(&self, search: &Search) -> Result<Page, ClientError> {
        let request = Request::get(self.page_url(search)).header("accept", "application/json");
        let request = request.body(Empty::<Bytes>::new()).map_err(ClientError::Request)?;
        let run = self.egress.begin_run();
        let (response, connection) = run.send(request, Timeouts::default()).await?;
        let (head, body) = response.into_parts();
        let (body, ()) = tokio::join!(body.collect(), connection);
        if !head.status.is_success() {
            return Err(ClientError::Status { status: head.status });
        }
        let body = body.map_err(ClientError::Incomplete)?.to_bytes();
        serde_json::from_slice(&body).map_err(ClientError::Format)
    }

    fn page_url(&self, Search { start, end, page, rows, topics }: &Search) -> String {
        let base = &self.url;
        let mut url = format!(
            "{base}/v2/search?start={start}&end={end}&order=asc&rows_per_page={rows}&page={page}"
        );
        for topic in topics {
            url.push_str("&topic=");
            url.push_str(topic);
        }
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, addresses: &[&str], expected: Result<(), &str>) {
        let addresses: Vec<_> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let tls_roots = TlsRoots::load(None).unwrap();
        let found = Client::new(url, &addresses, tls_roots).map(drop).map_err(|e| e.to_string());
        assert_eq!(found, expected.map_err(str::to_owned), "{url}");
    }

    #[test]
    fn a_url_is_https_or_has_known_addresses() {
        check("https://apps.example.org/datagrepper", &[], Ok(()));
        check("http://127.0.0.1:8000", &[], Ok(()));
        check("http://archive.example.org", &["10.0.0.0/8"], Ok(()));
        let plain = Err("the URL is not HTTPS, so anyone on the network could start tasks");
        check("http://archive.example.org", &[], plain);
        check("archive", &[], Err("the URL has no scheme or no host"));
        check("a b", &[], Err("the URL is invalid"));
    }

    #[test]
    fn a_page_url_has_the_whole_search() {
        let client = Client::new("https://a/b/", &[], TlsRoots::load(None).unwrap()).unwrap();
        let topics = vec!["x.y".to_owned(), "z".to_owned()];
        let search = Search { start: 1, end: 2, page: 3, rows: 50, topics };
        let expected = "https://a/b/v2/search?start=1&end=2&order=asc&rows_per_page=50&page=3&topic=x.y&topic=z";
        assert_eq!(client.page_url(&search), expected);
    }
}
