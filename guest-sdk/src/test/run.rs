//! The record of a native run: the result of the task, and the actions that the stand-in recorded.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::failure::Result;
use crate::host::recorded::{Emitted, LogLine, Request};
use crate::host::stand_in::{Host, Prepared};

/// The record of a native run: the result of the task, and its recorded actions.
#[derive(Clone, Debug)]
pub struct Run {
    /// The result of the task. If the body does not match the type in the task's signature, this is a
    /// rejection.
    pub result: Result,
    /// The log lines, in order.
    pub log: Vec<LogLine>,
    /// The notes, in order.
    pub notes: Vec<(String, String)>,
    /// The back-off before the next attempt, if the task has set one.
    pub retry_after: Option<Duration>,
    /// The emitted messages, in order. Empty if the run failed.
    pub emitted: Vec<Emitted>,
    /// The state after the run. If the run failed, it is the same as before the run. A value that is not JSON
    /// is converted to text.
    pub state: BTreeMap<String, Value>,
    /// The HTTP requests, in order, including those of a failed run.
    pub requests: Vec<Request>,
    /// The methods and URLs of the prepared responses that no request used.
    pub(super) unused_responses: Vec<String>,
}

impl Run {
    pub(super) fn new(result: Result, host: Host) -> Self {
        let value = |bytes: Vec<u8>| {
            let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
            serde_json::from_slice(&bytes).unwrap_or_else(|_| text())
        };
        let unused = |response: Prepared| format!("{} {}", response.method, response.url);
        Run {
            result,
            log: host.log,
            notes: host.notes,
            retry_after: host.retry_after,
            emitted: host.emitted,
            state: host.state.into_iter().map(|(key, bytes)| (key, value(bytes))).collect(),
            requests: host.requests,
            unused_responses: host.responses.into_iter().map(unused).collect(),
        }
    }

    /// Returns the value of the last note with this key.
    pub fn note(&self, key: &str) -> Option<&str> {
        let (_, value) = self.notes.iter().rfind(|(name, _)| name == key)?;
        Some(value)
    }
}
