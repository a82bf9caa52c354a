//! The actions of a task that the stand-in records in a native test: log lines, emitted messages and HTTP
//! requests.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::bindings::loopabull::task::log::Level;

/// A log line. Its `Display` text has the form `info: text key=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// The level of the line.
    pub level: Level,
    /// The text of the line.
    pub text: String,
    /// The fields, in order.
    pub fields: Vec<(String, String)>,
}

impl fmt::Display for LogLine {
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

/// A message that the task emitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Emitted {
    /// The topic.
    pub topic: String,
    /// The headers, in order, including duplicates.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Value,
}

/// An HTTP request that the task sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method, in upper case.
    pub method: String,
    /// The URL with its query, without its fragment.
    pub url: String,
    /// The headers that the task set, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// Returns the value of the first header with this name. The case of the name is ignored.
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(&header.1)
    }

    /// Returns the body as text. Invalid UTF-8 is replaced by U+FFFD.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }
}
