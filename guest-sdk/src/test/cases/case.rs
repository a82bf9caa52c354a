//! The file format of a case, and the comparison of a run with the expected result.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::host::recorded::Emitted;
use crate::host::stand_in::Secrets;
use crate::test::delivery::{self, Delivery};
use crate::test::run::Run;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    message: CaseMessage,
    attempt: Option<u32>,
    #[serde(default)]
    config: BTreeMap<String, String>,
    #[serde(default)]
    state: BTreeMap<String, Value>,
    #[serde(default)]
    http: Vec<Answer>,
    pub(super) expected: Expected,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseMessage {
    id: Option<String>,
    topic: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
    body: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    method: String,
    url: String,
    status: u16,
    #[serde(default)]
    body: String,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expected {
    outcome: Outcome,
    reason: Option<String>,
    notes: Option<Vec<(String, String)>>,
    emitted: Option<Vec<Emitted>>,
    state: Option<BTreeMap<String, Value>>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Success,
    Retry,
    Reject,
}

impl Case {
    pub(super) fn into_delivery(self) -> Delivery {
        let mut delivery = delivery::message(self.message.topic, self.message.body.to_string());
        if let Some(id) = self.message.id {
            delivery = delivery.id(id);
        }
        delivery.headers = self.message.headers;
        delivery.host.attempt = self.attempt.unwrap_or(1);
        delivery.host.config = self.config;
        delivery.host.secrets = Secrets::Any(BTreeMap::new());
        for (key, value) in &self.state {
            delivery = delivery.state(key, value);
        }
        for Answer { method, url, status, body } in self.http {
            delivery = delivery.respond(method, url, status, body);
        }
        delivery
    }
}

impl Expected {
    /// Returns a text with the differences between a run and the expected result. Empty if there are none.
    pub(super) fn differences(&self, run: &Run) -> String {
        let (outcome, reason) = match &run.result {
            Ok(()) => (Outcome::Success, None),
            Err(Failure::Retry(reason)) => (Outcome::Retry, Some(reason)),
            Err(Failure::Reject(reason)) => (Outcome::Reject, Some(reason)),
        };
        let mut report = String::new();
        let mut compare = |what: &str, expected: Value, found: Value| {
            if expected != found {
                let (expected, found) = (shown(&expected), shown(&found));
                write!(report, "\n  {what}\n    expected: {expected}\n    found:    {found}")
                    .expect("writing to a string cannot fail");
            }
        };
        // If the case has no `reason`, an unexpected outcome is shown together with its reason.
        match (&self.reason, reason) {
            (None, Some(reason)) if json!(self.outcome) != json!(outcome) => {
                compare("outcome", json!(self.outcome), json!([outcome, reason]));
            }
            _ => compare("outcome", json!(self.outcome), json!(outcome)),
        }
        if let Some(expected) = &self.reason {
            compare("reason", json!(expected), json!(reason));
        }
        compare("unused responses under `http`", json!([]), json!(run.unused_responses));
        if let Some(expected) = &self.notes {
            compare("notes", json!(expected), json!(run.notes));
        }
        if let Some(expected) = &self.emitted {
            compare("emitted", json!(expected), json!(run.emitted));
        }
        if let Some(expected) = &self.state {
            compare("state", json!(expected), json!(run.state));
        }
        report
    }
}

/// Returns the JSON of a value, on one line if it is short, otherwise on several lines.
fn shown(value: &Value) -> String {
    let line = value.to_string();
    if line.len() <= 80 { line } else { format!("{value:#}").replace('\n', "\n    ") }
}
