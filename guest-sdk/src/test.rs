//! Runs a task natively, with a stand-in for the host.
//!
//! ```
//! use loopabull_task::{Context, Message, Result, info, task, test};
//!
//! #[task]
//! fn greet(message: Message, cx: &Context) -> Result {
//!     info!(topic = message.topic, "{}", cx.require("greeting")?);
//!     cx.emit("org.example.greeted", &message.body)?;
//!     cx.state().set("last", &message.id)
//! }
//!
//! # fn main() {
//! let run = test::message("org.example.hello", r#"{"from": "ada"}"#)
//!     .config("greeting", "Good morning")
//!     .run(greet);
//! assert_eq!(run.result, Ok(()));
//! assert_eq!(run.log[0].to_string(), "info: Good morning topic=org.example.hello");
//! assert_eq!(run.emitted[0].body["from"], "ada");
//! assert_eq!(run.state["last"], "test-message");
//! # }
//! ```
//!
//! The body takes the same way as in a component: it is JSON text until the task's own
//! type reads it. As on the host, what a failed run sent and changed is gone. The stand-in caps
//! nothing, stops nothing and grants everything; it sends no request, but answers those that
//! [`Delivery::respond`] prepares for.
//!
//! [`cases`] runs what was recorded instead of written.

mod cases;
mod run;

use std::time::Duration;

use serde::Serialize;

use crate::host::stand_in::{Host, Prepared, Secrets};
use crate::http::Url;
use crate::{Context, Message, Task, host};

pub use self::cases::cases;
pub use self::run::{Emitted, Line, Request, Run};

/// Returns a message to run a task on, with the id `test-message`.
pub fn message(topic: impl Into<String>, body: impl AsRef<[u8]>) -> Delivery {
    Delivery {
        id: "test-message".to_owned(),
        topic: topic.into(),
        headers: Vec::new(),
        body: body.as_ref().to_vec(),
        host: Host::default(),
    }
}

/// A message on its way to a task, and what the task will find around it.
#[derive(Clone, Debug)]
#[must_use = "nothing happens until `run`"]
pub struct Delivery {
    id: String,
    topic: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    host: Host,
}

impl Delivery {
    /// Sets the message's id.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// Adds a header to the message.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets a value of the manifest's `[config]` table.
    pub fn config(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.host.config.insert(key.into(), value.into());
        self
    }

    /// Sets a secret of the manifest's `[grants.secrets]` table.
    pub fn secret(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let (Secrets::Named(secrets) | Secrets::Any(secrets)) = &mut self.host.secrets;
        secrets.insert(name.into(), value.into());
        self
    }

    /// Sets a value that an earlier run left in the state.
    ///
    /// # Panics
    ///
    /// If the value cannot be written as JSON.
    pub fn state(mut self, key: impl Into<String>, value: &(impl Serialize + ?Sized)) -> Self {
        let value = serde_json::to_vec(value).expect("a value of the state is JSON");
        self.host.state.insert(key.into(), value);
        self
    }

    /// Prepares the answer to one request, of that method and of that URL with its query.
    ///
    /// Several of the same method and URL answer in their order. A request without an answer
    /// meets what a site that is down would be: a retry, whose reason names the request.
    pub fn respond(
        mut self,
        method: impl Into<String>,
        url: impl Into<String>,
        status: u16,
        body: impl AsRef<[u8]>,
    ) -> Self {
        let url = url.into();
        let url = Url::parse(&url).map_or(url, |url| url.to_string());
        let body = body.as_ref().to_vec();
        self.host.responses.push_back(Prepared { method: method.into(), url, status, body });
        self
    }

    /// Sets the attempt, which is 1 otherwise.
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.host.attempt = attempt;
        self
    }

    /// Sets the time that is left, which is five seconds otherwise.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.host.deadline = deadline;
        self
    }

    /// Sets the run's id, which is `test-run` otherwise.
    pub fn run_id(mut self, run_id: impl Into<String>) -> Self {
        self.host.run_id = run_id.into();
        self
    }

    /// Runs the task on the message.
    ///
    /// A panic of the task is not caught; it fails the test.
    pub fn run<Arguments>(self, task: impl Task<Arguments>) -> Run {
        let Delivery { id, topic, headers, body, host } = self;
        let before = host.state.clone();
        let (result, mut host) = host::run(host, || {
            Message::from_parts(id, topic, headers, &body)
                .and_then(|message| task.run(message, &Context::of_this_run()))
        });
        if result.is_err() {
            host.state = before;
            host.emitted.clear();
        }
        Run::new(result, host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Result, info, reject, retry, warn};

    fn say_where_it_runs(_: Message, cx: &Context) -> Result {
        warn!(run = cx.run_id(), left = 1.5, "running");
        cx.note("attempt", cx.attempt());
        cx.note("left", cx.deadline().as_millis());
        cx.note("left", "less");
        reject("done")
    }

    #[test]
    fn run_shows_what_the_task_left() {
        let run = message("org.example", "{}")
            .run_id("r-1")
            .attempt(3)
            .deadline(Duration::from_millis(250))
            .run(say_where_it_runs);
        assert_eq!(run.result, reject("done"));
        assert_eq!(run.log.len(), 1);
        assert_eq!(run.log[0].to_string(), "warn: running run=r-1 left=1.5");
        assert_eq!(run.notes[0], ("attempt".to_owned(), "3".to_owned()));
        assert_eq!(run.notes[1], ("left".to_owned(), "250".to_owned()));
        assert_eq!(run.note("left"), Some("less"));
        assert_eq!(run.note("right"), None);
    }

    #[test]
    fn a_pause_that_was_asked_for_shows() {
        let run = message("org.example", "{}").run(|_: Message, cx: &Context| {
            cx.retry_after(Duration::from_secs(90));
            retry("not yet")
        });
        assert_eq!(run.result, retry("not yet"));
        assert_eq!(run.retry_after, Some(Duration::from_secs(90)));
    }

    #[test]
    fn runs_do_not_see_each_other() {
        let first = message("org.example", "{}").attempt(2).run(say_where_it_runs);
        let second = message("org.example", "{}").run(say_where_it_runs);
        assert_eq!(first.note("attempt"), Some("2"));
        assert_eq!(second.note("attempt"), Some("1"));
        assert_eq!(second.log.len(), 1);
    }

    #[test]
    fn task_called_without_the_stand_in_meets_the_defaults() {
        let cx = Context::of_this_run();
        assert_eq!(cx.run_id(), "test-run");
        info!("to nobody");
        assert_eq!(cx.deadline(), Duration::from_secs(5));
    }
}
