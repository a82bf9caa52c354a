//! The response to an HTTP request. Decides whether an error status leads to a retry or a rejection.

use std::borrow::Cow;

use serde::de::DeserializeOwned;

use crate::failure::{Failure, Result};
use crate::host;
use crate::host::exchange::Incoming;

/// The response to a request, with its complete body.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code, for example 200.
    pub status: u16,
    /// The headers in the order in which they were received, including duplicates.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The method and the URL of the request, without the query.
    request: String,
}

impl Response {
    pub(super) fn new(request: String, incoming: Incoming) -> Self {
        let Incoming { status, headers, body } = incoming;
        Response { status, headers, body, request }
    }

    /// Returns the value of the first header with this name. The case of the name is ignored.
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(&header.1)
    }

    /// Returns the body as text. Invalid UTF-8 is replaced by U+FFFD.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// Parses the body as JSON.
    ///
    /// # Errors
    ///
    /// [`Failure::Retry`] if the body is not the JSON of a `T`. A retry may help, because a site under
    /// maintenance often answers with an HTML page.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Failure::Retry(format!("{} answered with unexpected JSON: {error}", self.request))
        })
    }

    /// Returns the response if its status is 2xx.
    ///
    /// # Errors
    ///
    /// [`Failure::Retry`] for the statuses 408, 429 and 5xx. A header `Retry-After` in seconds then sets the
    /// back-off before the next attempt. [`Failure::Reject`] for every other status, including redirects.
    pub fn error_for_status(self) -> Result<Self> {
        let reason = || format!("{} answered {}", self.request, self.status);
        match self.status {
            200..=299 => Ok(self),
            408 | 429 | 500.. => {
                let pause = self.header("retry-after").and_then(|value| value.trim().parse().ok());
                if let Some(seconds) = pause {
                    host::context::retry_after_ms(u64::saturating_mul(seconds, 1000));
                }
                Err(Failure::Retry(reason()))
            }
            _ => Err(Failure::Reject(reason())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Message, reject, retry, test};

    fn response(status: u16, headers: &[(&str, &str)]) -> Response {
        let headers = headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let incoming = Incoming { status, headers, body: b"<html>".to_vec() };
        Response::new("GET https://a.example/".to_owned(), incoming)
    }

    fn check(status: u16, expected: Result<u16>) {
        assert_eq!(response(status, &[]).error_for_status().map(|good| good.status), expected);
    }

    #[test]
    fn a_2xx_status_is_returned() {
        check(200, Ok(200));
        check(204, Ok(204));
    }

    #[test]
    fn a_temporary_error_status_asks_for_a_retry() {
        for status in [408, 429, 500, 503, 599] {
            check(status, retry(format!("GET https://a.example/ answered {status}")));
        }
    }

    #[test]
    fn any_other_status_is_rejected() {
        for status in [302, 304, 400, 401, 404] {
            check(status, reject(format!("GET https://a.example/ answered {status}")));
        }
    }

    #[test]
    fn retry_after_in_seconds_sets_the_pause() {
        let pause = |value: &'static str| {
            let run = test::message("org.example", "{}").run(|_: Message| {
                response(503, &[("Retry-After", value)]).error_for_status().map(drop)
            });
            run.retry_after
        };
        assert_eq!(pause("90"), Some(Duration::from_secs(90)));
        assert_eq!(pause("Fri, 31 Dec 1999 23:59:59 GMT"), None);
    }

    #[test]
    fn a_page_instead_of_json_asks_for_a_retry() {
        let response = response(200, &[]);
        assert_eq!(response.text(), "<html>");
        let reason = "GET https://a.example/ answered with unexpected JSON: expected value at line 1 \
                      column 1";
        assert_eq!(response.json::<u8>(), retry(reason));
    }
}
