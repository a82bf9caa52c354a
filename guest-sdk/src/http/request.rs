//! Builds, checks and sends an HTTP request.

use std::time::Duration;

use serde::Serialize;

use super::form;
use super::response::Response;
use crate::failure::{Failure, Result};
use crate::host;
use crate::host::exchange::{Outgoing, SendError};
use crate::url::Url;

/// The default maximum size of a response body, in bytes.
const MAX_RESPONSE_BYTES: usize = 1024 * 1024;

/// An HTTP request that is not sent yet. The methods of [`Http`](super::Http) create requests.
///
/// The parts of the request are checked by [`Request::send`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens until `send`"]
pub struct Request {
    method: &'static str,
    url: std::result::Result<Url, &'static str>,
    headers: Vec<(String, String)>,
    body: std::result::Result<Vec<u8>, String>,
    timeout: Option<Duration>,
    max_response_bytes: usize,
}

impl Request {
    pub(super) fn new(method: &'static str, url: &str) -> Self {
        Request {
            method,
            url: Url::parse(url),
            headers: Vec::new(),
            body: Ok(Vec::new()),
            timeout: None,
            max_response_bytes: MAX_RESPONSE_BYTES,
        }
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Adds the header `Authorization: Bearer TOKEN`.
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Ok(body.into());
        self
    }

    /// Sets the body to a value as JSON. Adds the header `content-type: application/json`.
    pub fn json(mut self, value: &(impl Serialize + ?Sized)) -> Self {
        self.body = serde_json::to_vec(value).map_err(|error| error.to_string());
        self.header("content-type", "application/json")
    }

    /// Sets the body to a form. Adds the header `content-type: application/x-www-form-urlencoded`.
    pub fn form<K: AsRef<str>, V: AsRef<str>>(self, fields: &[(K, V)]) -> Self {
        self.body(form::encode(fields)).header("content-type", "application/x-www-form-urlencoded")
    }

    /// Sets the timeout of the whole exchange, from connecting to the last byte of the response.
    ///
    /// The default is 90 % of the remaining time of the run, so that the task can report the slow request
    /// before the host stops the run.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the maximum size of the response body. The default is 1 MiB.
    pub fn max_response_bytes(mut self, bytes: usize) -> Self {
        self.max_response_bytes = bytes;
        self
    }

    /// Sends the request and waits for the complete response. Redirects are not followed.
    ///
    /// A response with an error status is returned like any other.
    /// [`error_for_status`](Response::error_for_status) turns an error status into a failure.
    ///
    /// # Errors
    ///
    /// [`Failure::Retry`] if no response arrives. [`Failure::Reject`] if the request is invalid, if the
    /// manifest does not grant the host, or if the response is too large.
    pub fn send(self) -> Result<Response> {
        let method = self.method;
        let reject = |reason: String| Err(Failure::Reject(reason));
        let url = match self.url {
            Ok(url) => url,
            Err(problem) => return reject(format!("cannot send a {method} request: {problem}")),
        };
        let request = format!("{method} {}", url.without_query());
        let body = match self.body {
            Ok(body) => body,
            Err(problem) => return reject(format!("cannot send {request}: {problem}")),
        };
        if let Some((name, _)) = self.headers.iter().find(|header| !is_header(header)) {
            return reject(format!("cannot send {request}: header `{name}` is invalid"));
        }
        let default_timeout = || Duration::from_millis(host::context::deadline_ms()).mul_f32(0.9);
        let sent = host::http::send(&Outgoing {
            method,
            url: &url,
            headers: &self.headers,
            body: &body,
            timeout: self.timeout.unwrap_or_else(default_timeout),
            max_response_bytes: self.max_response_bytes,
        });
        match sent {
            Ok(incoming) => Ok(Response::new(request, incoming)),
            Err(SendError::Failed(reason)) => {
                Err(Failure::Retry(format!("{request} failed: {reason}")))
            }
            Err(SendError::Refused) => reject(format!(
                "{request} was refused: the task's manifest must grant the host and its address; \
                 add `{}` to `http` under `[grants]`",
                url.origin()
            )),
            Err(SendError::TooLarge) => reject(format!(
                "{request} answered with more than {} bytes",
                self.max_response_bytes
            )),
        }
    }
}

/// Returns whether the name and the value of a header are valid according to RFC 9110.
fn is_header((name, value): &(String, String)) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let is_text = |byte: u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
    !name.is_empty() && name.bytes().all(is_token) && value.bytes().all(is_text)
}

#[cfg(test)]
mod tests {
    use crate::test::{self, Run};
    use crate::{Context, Message, Result, reject, retry};

    fn run(task: fn(Message, &Context) -> Result) -> Run {
        test::message("org.example", "{}").respond("POST", "https://a.example", 200, "12").run(task)
    }

    #[test]
    fn a_request_is_sent_with_its_headers_and_body() {
        let run = run(|_, cx| {
            let request = cx.http().post("https://a.example/").json(&[1]).header("x-a", "b");
            let response = request.bearer("t").send()?.error_for_status()?;
            assert_eq!(response.json::<u8>()?, 12);
            Ok(())
        });
        assert_eq!(run.result, Ok(()));
        let request = &run.requests[0];
        assert_eq!((request.method.as_str(), request.url.as_str()), ("POST", "https://a.example/"));
        assert_eq!(request.header("Content-Type"), Some("application/json"));
        assert_eq!(request.header("x-a"), Some("b"));
        assert_eq!(request.header("authorization"), Some("Bearer t"));
        assert_eq!(request.text(), "[1]");
    }

    #[test]
    fn each_prepared_response_answers_one_request() {
        let run = run(|_, cx| {
            cx.http().post("https://a.example").send()?;
            cx.http().post("https://a.example").send()?;
            Ok(())
        });
        let reason = "POST https://a.example/ failed: no response is prepared for \
                      `https://a.example/`";
        assert_eq!(run.result, retry(reason));
        assert_eq!(run.requests.len(), 2);
    }

    #[test]
    fn a_request_without_a_prepared_response_is_named() {
        let run = run(|_, cx| cx.http().get("https://a.example/b?c=d").send().map(drop));
        let reason = "GET https://a.example/b failed: no response is prepared for \
                      `https://a.example/b?c=d`";
        assert_eq!(run.result, retry(reason));
    }

    #[test]
    fn an_invalid_request_is_rejected_before_it_is_sent() {
        let run = run(|_, cx| cx.http().get("a.example").send().map(drop));
        assert_eq!(run.result, reject("cannot send a GET request: the URL is not absolute"));
        let run = super::tests::run(|_, cx| {
            cx.http().get("https://a.example").bearer("a\r\nb: c").send().map(drop)
        });
        let reason = "cannot send GET https://a.example/: header `authorization` is invalid";
        assert_eq!(run.result, reject(reason));
        assert!(run.requests.is_empty());
    }

    #[test]
    fn a_response_beyond_the_limit_is_rejected() {
        let run =
            run(|_, cx| cx.http().post("https://a.example").max_response_bytes(1).send().map(drop));
        assert_eq!(run.result, reject("POST https://a.example/ answered with more than 1 bytes"));
    }
}
