//! What came of a native run: everything that the task left with the stand-in.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Result;
use crate::host::stand_in::{Host, Prepared};
use crate::log::Level;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Run {
    /// What the task returned, or the rejection of a body that does not fit it.
    pub result: Result,
    /// The log lines, in order.
    pub log: Vec<Line>,
    /// The notes, in order.
    pub notes: Vec<(String, String)>,
    /// The pause before the next attempt that was asked for.
    pub retry_after: Option<Duration>,
    /// The messages that are sent, in order: none if the run failed.
    pub emitted: Vec<Emitted>,
    /// The state after the run: unchanged if it failed. A value that is not JSON is its text.
    pub state: BTreeMap<String, Value>,
    /// The HTTP requests, in order, also those of a failed run.
    pub requests: Vec<Request>,
    /// The methods and URLs of the answers that no request came for.
    pub(super) unasked: Vec<String>,
}

impl Run {
    pub(super) fn new(result: Result, host: Host) -> Self {
        let value = |bytes: Vec<u8>| {
            let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
            serde_json::from_slice(&bytes).unwrap_or_else(|_| text())
        };
        let unasked = |answer: Prepared| format!("{} {}", answer.method, answer.url);
        Run {
            result,
            log: host.log,
            notes: host.notes,
            retry_after: host.retry_after,
            emitted: host.emitted,
            state: host.state.into_iter().map(|(key, bytes)| (key, value(bytes))).collect(),
            requests: host.requests,
            unasked: host.responses.into_iter().map(unasked).collect(),
        }
    }

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

/// A message that the task sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Emitted {
    /// The topic.
    pub topic: String,
    /// In their order, duplicates kept.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Value,
}

/// An HTTP request that the task sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method, in capitals.
    pub method: String,
    /// The URL, with its query and without its fragment.
    pub url: String,
    /// The headers that the task set, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// Returns the first header of that name, in whatever case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(&header.1)
    }

    /// Returns the body as text. What is not UTF-8 in it is replaced.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }
}
