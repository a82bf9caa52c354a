//! A message for a task under test, and the values that the task can read from the stand-in.

use std::time::Duration;

use serde::Serialize;

use super::run::Run;
use crate::context::Context;
use crate::host;
use crate::host::stand_in::{Host, Prepared, Secrets};
use crate::message::Message;
use crate::task::Task;
use crate::url::Url;

/// Returns a message for a task. Its id is `test-message`. `body` is JSON text.
pub fn message(topic: impl Into<String>, body: impl AsRef<[u8]>) -> Delivery {
    Delivery {
        id: "test-message".to_owned(),
        topic: topic.into(),
        headers: Vec::new(),
        body: body.as_ref().to_vec(),
        host: Host::default(),
    }
}

/// A message for a task, and the values that the task gets from the stand-in. [`message`] returns a
/// `Delivery`.
#[derive(Clone, Debug)]
#[must_use = "nothing happens until `run`"]
pub struct Delivery {
    id: String,
    topic: String,
    pub(super) headers: Vec<(String, String)>,
    body: Vec<u8>,
    pub(super) host: Host,
}

impl Delivery {
    /// Sets the id of the message.
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

    /// Sets the value of a key in the state before the run.
    ///
    /// # Panics
    ///
    /// If the value cannot be written as JSON.
    pub fn state(mut self, key: impl Into<String>, value: &(impl Serialize + ?Sized)) -> Self {
        let value = serde_json::to_vec(value).expect("a value of the state can be written as JSON");
        self.host.state.insert(key.into(), value);
        self
    }

    /// Prepares the response to one request with this method and this URL. The URL includes the query.
    ///
    /// Several responses for the same method and URL are used in order. A request without a prepared response
    /// fails with [`Failure::Retry`](crate::Failure::Retry), like a request to an unreachable server. The
    /// reason names the request.
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

    /// Sets the number of the attempt. The default is 1.
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.host.attempt = attempt;
        self
    }

    /// Sets the remaining time of the run. The default is five seconds.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.host.deadline = deadline;
        self
    }

    /// Sets the id of the run. The default is `test-run`.
    pub fn run_id(mut self, run_id: impl Into<String>) -> Self {
        self.host.run_id = run_id.into();
        self
    }

    /// Runs the task on the message.
    ///
    /// A panic of the task is not caught, so the test fails.
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
