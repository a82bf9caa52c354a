//! Runs a task natively, with a stand-in for the host.
//!
//! ```
//! use loopabull_task::{Message, Result, config, log, test};
//!
//! fn greet(message: Message) -> Result {
//!     let greeting = config::require("greeting")?;
//!     log::info(&greeting, &[("topic", &message.topic)]);
//!     Ok(())
//! }
//!
//! let run = test::message("org.example.hello", "{}")
//!     .config("greeting", "Good morning")
//!     .run(greet);
//! assert_eq!(run.result, Ok(()));
//! assert_eq!(run.log[0].to_string(), "info: Good morning topic=org.example.hello");
//! ```
//!
//! The body takes the same way as in a component: it is JSON text until the task's own
//! type reads it. The stand-in caps nothing and stops nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::log::Level;
use crate::{Message, Result, host};

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
    pub fn run<T: DeserializeOwned>(self, task: fn(Message<T>) -> Result) -> Run {
        let Delivery { id, topic, headers, body, host } = self;
        let (result, host) =
            host::run(host, || Message::from_parts(id, topic, headers, &body).and_then(task));
        Run { result, log: host.log, notes: host.notes, retry_after: host.retry_after }
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Run {
    /// What the task returned, or the rejection of a body that does not fit it.
    pub result: Result,
    /// The log lines, in order.
    pub log: Vec<Line>,
    /// The notes, in order.
    pub notes: Vec<(String, String)>,
    /// The pause before the next attempt that the task asked for.
    pub retry_after: Option<Duration>,
}

impl Run {
    /// Returns the last note of that key.
    pub fn note(&self, key: &str) -> Option<&str> {
        let (_, value) = self.notes.iter().rfind(|(name, _)| name == key)?;
        Some(value)
    }
}

/// A log line. Displayed as `info: text key=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// How urgent it is.
    pub level: Level,
    /// The text.
    pub text: String,
    /// The fields, in order.
    pub fields: Vec<(String, String)>,
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        };
        write!(formatter, "{level}: {}", self.text)?;
        for (key, value) in &self.fields {
            write!(formatter, " {key}={value}")?;
        }
        Ok(())
    }
}

/// What the stand-in for the host tells a task, and what it was told.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) run_id: String,
    pub(crate) attempt: u32,
    pub(crate) deadline: Duration,
    pub(crate) config: BTreeMap<String, String>,
    pub(crate) log: Vec<Line>,
    pub(crate) notes: Vec<(String, String)>,
    pub(crate) retry_after: Option<Duration>,
}

impl Default for Host {
    fn default() -> Self {
        Host {
            run_id: "test-run".to_owned(),
            attempt: 1,
            deadline: Duration::from_secs(5),
            config: BTreeMap::new(),
            log: Vec::new(),
            notes: Vec::new(),
            retry_after: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{context, log, reject};

    fn say_where_it_runs(_: Message) -> Result {
        log::warn("running", &[("run", &context::run_id()), ("left", &1.5)]);
        context::note("attempt", context::attempt());
        context::note("left", context::deadline().as_millis());
        context::note("left", "less");
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
        let run = message("org.example", "{}").run(|_: Message| {
            context::retry_after(Duration::from_secs(90));
            crate::retry("not yet")
        });
        assert_eq!(run.result, crate::retry("not yet"));
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
        assert_eq!(context::run_id(), "test-run");
        log::info("to nobody", &[]);
        assert_eq!(context::deadline(), Duration::from_secs(5));
    }
}
