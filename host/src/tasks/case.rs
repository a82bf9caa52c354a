//! A recorded test case: a message, the configuration and state of its task, and the outcome.
//!
//! `test --record` writes test cases. `test::cases` of the guest SDK reads them in the task's
//! crate. A test case contains no secrets: secrets are masked in the outcome and the notes, and the
//! SDK passes placeholders to the task.

use std::collections::BTreeMap;
use std::path::Path;

use loopabull_model::{Attempt, Manifest, Message, Outcome};
use serde::Serialize;
use serde_json::Value;

/// A recorded test case.
#[derive(Debug, Serialize)]
pub(crate) struct Case {
    message: CaseMessage,
    attempt: u32,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    config: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    state: BTreeMap<String, Value>,
    expected: Expected,
}

#[derive(Debug, Serialize)]
struct CaseMessage {
    id: String,
    topic: String,
    headers: Vec<(String, String)>,
    body: Value,
}

#[derive(Debug, Serialize)]
struct Expected {
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    notes: Vec<(String, String)>,
    emitted: Vec<Sent>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    state: BTreeMap<String, Value>,
}

#[derive(Debug, Serialize)]
struct Sent {
    topic: String,
    headers: Vec<(String, String)>,
    body: Value,
}

/// The reason why a run cannot be recorded as a test case.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaseError {
    #[error(
        "cannot record the outcome `{outcome}`, because a test case can only expect success, retry or reject"
    )]
    Outcome { outcome: &'static str },
    #[error("the value of the state key `{key}` is not JSON")]
    State { key: String },
    #[error(
        "cannot record a run with HTTP requests such as `{request}`, because responses are not recorded"
    )]
    Request { request: String },
    #[error("cannot write the test case `{path}`")]
    Write { path: std::path::PathBuf, source: std::io::Error },
}

impl Case {
    /// Creates the test case of a run.
    pub(crate) fn new(
        message: &Message,
        number: u32,
        manifest: &Manifest,
        attempt: &Attempt,
    ) -> Result<Self, CaseError> {
        if let Some(request) = attempt.usage.requests.first() {
            return Err(CaseError::Request { request: request.clone() });
        }
        let reason = match &attempt.outcome {
            Outcome::Success => None,
            Outcome::Retry { reason, .. } | Outcome::Reject { reason } => Some(reason.to_string()),
            outcome => return Err(CaseError::Outcome { outcome: outcome.name() }),
        };
        let state = &attempt.effects.state;
        let before = json(&state.read)?;
        let mut after = before.clone();
        for (key, value) in &state.written {
            after.remove(key);
            after.extend(json(&[(key.clone(), value.clone())].into())?);
        }
        let emitted = attempt.effects.emitted.iter().map(|emission| Sent {
            topic: emission.topic.to_string(),
            headers: emission.headers.clone(),
            body: emission.body.to_value(),
        });
        Ok(Self {
            message: CaseMessage {
                id: message.id.to_string(),
                topic: message.topic.to_string(),
                headers: message.headers.clone(),
                body: message.body.to_value(),
            },
            attempt: number,
            config: manifest.config.clone(),
            state: before,
            expected: Expected {
                outcome: attempt.outcome.name(),
                reason,
                notes: attempt.notes.clone(),
                emitted: emitted.collect(),
                state: after,
            },
        })
    }

    /// Writes the test case to a file, and creates its directory if it is missing.
    pub(crate) fn write(&self, path: &Path) -> Result<(), CaseError> {
        let cannot = |source| CaseError::Write { path: path.to_owned(), source };
        let text = serde_json::to_string_pretty(self)
            .expect("a test case contains only JSON types")
            + "\n";
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(cannot)?;
        }
        std::fs::write(path, text).map_err(cannot)
    }
}

fn json(values: &BTreeMap<String, Option<Vec<u8>>>) -> Result<BTreeMap<String, Value>, CaseError> {
    let values = values.iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
    values
        .map(|(key, value)| {
            let value = serde_json::from_slice(value);
            Ok((key.clone(), value.map_err(|_| CaseError::State { key: key.clone() })?))
        })
        .collect()
}
