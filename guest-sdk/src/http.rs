//! A small client for HTTP: one request, one answer, no redirects, everything with a limit.
//!
//! Owns the words for what went wrong, and what of it is worth another attempt. Whether a request
//! may leave is decided by the host, from `http` under `[grants]` in the manifest.
//!
//! ```
//! use loopabull_task::{Context, Message, Result, task, test};
//!
//! #[derive(serde::Deserialize)]
//! struct Project {
//!     name: String,
//! }
//!
//! #[task]
//! fn star(_message: Message, cx: &Context) -> Result {
//!     let token = cx.secret("forge")?;
//!     let url = "https://forge.example/api/projects/1";
//!     let project: Project = cx.http().get(url).send()?.error_for_status()?.json()?;
//!     cx.http()
//!         .post(format!("{url}/star"))
//!         .bearer(&token)
//!         .form(&[("comment", format!("{} is fine", project.name))])
//!         .send()?
//!         .error_for_status()?;
//!     Ok(())
//! }
//!
//! # fn main() {
//! let run = test::message("org.example", "{}")
//!     .secret("forge", "s3cret")
//!     .respond("GET", "https://forge.example/api/projects/1", 200, r#"{"name": "bull"}"#)
//!     .respond("POST", "https://forge.example/api/projects/1/star", 503, "")
//!     .run(star);
//! let reason = "POST https://forge.example/api/projects/1/star answered 503";
//! assert_eq!(run.result, loopabull_task::retry(reason));
//! assert_eq!(run.requests[1].header("authorization"), Some("Bearer s3cret"));
//! assert_eq!(run.requests[1].text(), "comment=bull+is+fine");
//! # }
//! ```
//!
//! # What is tried again
//!
//! [`Request::send`] asks for a retry if there was no answer: no connection, no name, no time
//! left. It rejects what will never work: a URL that is none, a host that the manifest does not
//! grant, an answer beyond the limit. [`Response::error_for_status`] asks for a retry at 408, 429
//! and 5xx, and rejects at any other status that is not 2xx. The reasons name the method, the URL
//! without its query, and the status; never a header or a body.

mod form;
mod request;
mod response;
mod url;

use std::time::Duration;

pub use self::request::Request;
pub use self::response::Response;
#[cfg(target_family = "wasm")]
pub(crate) use self::url::Scheme;
pub(crate) use self::url::Url;

/// A client for HTTP. From [`Context::http`](crate::Context::http).
#[derive(Debug)]
pub struct Http(());

impl Http {
    pub(crate) const fn of_this_run() -> Self {
        Http(())
    }

    /// Begins a `GET` of an absolute URL.
    pub fn get(&self, url: impl AsRef<str>) -> Request {
        Request::new("GET", url.as_ref())
    }

    /// Begins a `POST` to an absolute URL.
    pub fn post(&self, url: impl AsRef<str>) -> Request {
        Request::new("POST", url.as_ref())
    }

    /// Begins a `PUT` to an absolute URL.
    pub fn put(&self, url: impl AsRef<str>) -> Request {
        Request::new("PUT", url.as_ref())
    }

    /// Begins a `PATCH` of an absolute URL.
    pub fn patch(&self, url: impl AsRef<str>) -> Request {
        Request::new("PATCH", url.as_ref())
    }

    /// Begins a `DELETE` of an absolute URL.
    pub fn delete(&self, url: impl AsRef<str>) -> Request {
        Request::new("DELETE", url.as_ref())
    }
}

/// A request as it is handed to the host.
pub(crate) struct Outgoing<'a> {
    pub(crate) method: &'a str,
    pub(crate) url: &'a Url,
    pub(crate) headers: &'a [(String, String)],
    pub(crate) body: &'a [u8],
    /// For everything, from the connection to the last byte of the answer.
    #[cfg_attr(not(target_family = "wasm"), expect(dead_code, reason = "a stand-in never waits"))]
    pub(crate) timeout: Duration,
    pub(crate) max_response_bytes: usize,
}

/// An answer as it comes from the host.
pub(crate) struct Incoming {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// Why there is no answer.
pub(crate) enum Trouble {
    /// It may work later.
    Failed(String),
    /// The host does not let it out.
    #[cfg_attr(not(target_family = "wasm"), expect(dead_code, reason = "a stand-in grants all"))]
    Refused,
    /// The answer is larger than the request allows.
    TooLarge,
}
