//! The answer to a request, and what its status means for the message.

use std::borrow::Cow;

use serde::de::DeserializeOwned;

use super::Incoming;
use crate::{Failure, Result, host};

/// The answer to a request, with its whole body.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status, for example 200.
    pub status: u16,
    /// In the order of the wire, duplicates kept.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// What was asked: the method and the URL without its query.
    asked: String,
}

impl Response {
    pub(super) fn new(asked: String, answer: Incoming) -> Self {
        let Incoming { status, headers, body } = answer;
        Response { status, headers, body, asked }
    }

    /// Returns the first header of that name, in whatever case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(&header.1)
    }

    /// Returns the body as text. What is not UTF-8 in it is replaced.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// Returns the value whose JSON the body is.
    ///
    /// # Errors
    ///
    /// [`Failure::Retry`] if it is none of a `T`: a site that is worked on answers with a page.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Failure::Retry(format!("{} answered what does not fit: {error}", self.asked))
        })
    }

    /// Returns the response if its status is 2xx.
    ///
    /// # Errors
    ///
    /// [`Failure::Retry`] at 408, 429 and 5xx; a header `Retry-After` in seconds then becomes the
    /// pause. [`Failure::Reject`] at any other status, redirects among them.
    pub fn error_for_status(self) -> Result<Self> {
        let reason = || format!("{} answered {}", self.asked, self.status);
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
        let answer = Incoming { status, headers, body: b"<html>".to_vec() };
        Response::new("GET https://a.example/".to_owned(), answer)
    }

    fn check(status: u16, expected: Result<u16>) {
        assert_eq!(response(status, &[]).error_for_status().map(|good| good.status), expected);
    }

    #[test]
    fn success_passes() {
        check(200, Ok(200));
        check(204, Ok(204));
    }

    #[test]
    fn trouble_of_the_moment_is_tried_again() {
        for status in [408, 429, 500, 503, 599] {
            check(status, retry(format!("GET https://a.example/ answered {status}")));
        }
    }

    #[test]
    fn anything_else_is_rejected() {
        for status in [302, 304, 400, 401, 404] {
            check(status, reject(format!("GET https://a.example/ answered {status}")));
        }
    }

    #[test]
    fn site_may_say_when_to_come_back() {
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
    fn page_instead_of_json_is_tried_again() {
        let response = response(200, &[]);
        assert_eq!(response.text(), "<html>");
        let reason = "GET https://a.example/ answered what does not fit: expected value at line 1 \
                      column 1";
        assert_eq!(response.json::<u8>(), retry(reason));
    }
}
