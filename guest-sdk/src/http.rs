//! A small HTTP client: one request, one response, no redirects, and limits on time and size.
//!
//! The client turns each error into a failure, which is a retry or a rejection with a reason. The host
//! decides by `http` under `[grants]` in the manifest whether a request may be sent.
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
//! A part of a path that comes from a message is encoded with [`segment`]: `format!("{url}/{}", segment(name)?)`.
//!
//! # Retry or reject
//!
//! [`Request::send`] returns [`Failure::Retry`](crate::Failure::Retry) if there is no response: the name
//! cannot be resolved, the connection fails, or the timeout expires. `send` returns
//! [`Failure::Reject`](crate::Failure::Reject) if a retry cannot help: the URL is invalid, the manifest does
//! not grant the host, or the response is too large. [`Response::error_for_status`] returns `Retry` for the
//! statuses 408, 429 and 5xx, and `Reject` for every other status that is not 2xx. The reasons contain the
//! method, the URL without its query, and the status. The reasons never contain a header or a body.

mod form;
mod percent;
mod request;
mod response;
mod segment;

pub use self::request::Request;
pub use self::response::Response;
pub use self::segment::segment;

/// An HTTP client. [`Context::http`](crate::Context::http) returns an `Http`.
#[derive(Debug)]
pub struct Http(());

impl Http {
    pub(crate) const fn of_this_run() -> Self {
        Http(())
    }

    /// Starts a `GET` request. The URL must be absolute.
    pub fn get(&self, url: impl AsRef<str>) -> Request {
        Request::new("GET", url.as_ref())
    }

    /// Starts a `POST` request. The URL must be absolute.
    pub fn post(&self, url: impl AsRef<str>) -> Request {
        Request::new("POST", url.as_ref())
    }

    /// Starts a `PUT` request. The URL must be absolute.
    pub fn put(&self, url: impl AsRef<str>) -> Request {
        Request::new("PUT", url.as_ref())
    }

    /// Starts a `PATCH` request. The URL must be absolute.
    pub fn patch(&self, url: impl AsRef<str>) -> Request {
        Request::new("PATCH", url.as_ref())
    }

    /// Starts a `DELETE` request. The URL must be absolute.
    pub fn delete(&self, url: impl AsRef<str>) -> Request {
        Request::new("DELETE", url.as_ref())
    }
}
