//! Dead letters: their content, the records of dead-letterings, and the verdicts of an operator.
//!
//! This module does not store dead letters. The backends store and read them.

use std::borrow::Cow;

use loopabull_model::{EntryId, Message, QueueName, TaskName};
use serde::{Deserialize, Serialize};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// Maximum number of bytes of a run's output that a dead letter keeps. RabbitMQ stores the output in a
/// header, and all headers of a message must fit into one frame of 128 KiB.
pub const MAX_OUTPUT: usize = 4 << 10;
/// Maximum number of records of earlier dead-letterings that a dead letter keeps.
pub(crate) const MAX_HISTORY: usize = 10;

/// A dead-lettered entry or external message.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(from = "Form", into = "Form")]
pub struct DeadLetter {
    pub id: EntryId,
    pub queue: QueueName,
    /// Task of the entry. `None` if the task cannot be read, and for an external message.
    pub task: Option<TaskName>,
    /// Message of the entry, or the reason why the message cannot be read.
    pub message: Result<Message, String>,
    /// Body of the message in the queue, byte for byte.
    pub body: Vec<u8>,
    pub death: DeathRecord,
    /// End of the output of the entry's last run.
    pub output: String,
    /// Records of earlier dead-letterings, the oldest first.
    pub history: Vec<DeathRecord>,
}

/// How a dead letter is written as JSON.
#[derive(Clone, Deserialize, Serialize, ToSchema)]
struct Form {
    id: EntryId,
    queue: QueueName,
    task: Option<TaskName>,
    message: Option<Message>,
    /// The reason why the message cannot be read. Then `body` has what is in the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unreadable: Option<String>,
    /// Bytes that are not UTF-8 are replaced by `\u{fffd}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    death: DeathRecord,
    output: String,
    history: Vec<DeathRecord>,
}

impl PartialSchema for DeadLetter {
    fn schema() -> RefOr<Schema> {
        Form::schema()
    }
}

impl ToSchema for DeadLetter {
    fn name() -> Cow<'static, str> {
        "DeadLetter".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Form::schemas(schemas);
    }
}

impl From<DeadLetter> for Form {
    fn from(letter: DeadLetter) -> Self {
        let DeadLetter { id, queue, task, message, body, death, output, history } = letter;
        let (message, unreadable, body) = match message {
            Ok(message) => (Some(message), None, None),
            Err(reason) => (None, Some(reason), Some(String::from_utf8_lossy(&body).into_owned())),
        };
        Self { id, queue, task, message, unreadable, body, death, output, history }
    }
}

impl From<Form> for DeadLetter {
    fn from(form: Form) -> Self {
        let Form { id, queue, task, message, unreadable, body, death, output, history } = form;
        let message = message.ok_or_else(|| unreadable.unwrap_or_default());
        let body = body.unwrap_or_default().into_bytes();
        Self { id, queue, task, message, body, death, output, history }
    }
}

/// The record of one dead-lettering: its reason and its time.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct DeathRecord {
    pub reason: String,
    /// Number of attempts before the dead-lettering.
    pub attempts: u32,
    /// Time at which the entry was first published, in milliseconds since 1970; 0 if unknown.
    pub queued_at_ms: i64,
    /// Time at which the entry became a dead letter, in milliseconds since 1970; 0 if unknown.
    pub died_at_ms: i64,
}

/// An operator's verdict on a dead letter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The dead letter stays.
    Keep,
    /// The dead letter returns to its queue as a new entry, whose attempts are counted from 1 again.
    Requeue,
    /// The dead letter is deleted.
    Drop,
}

/// Returns the end of a text: at most [`MAX_OUTPUT`] bytes, and only whole characters.
pub(crate) fn tail(text: &str) -> &str {
    let start = text.len().saturating_sub(MAX_OUTPUT);
    &text[text.ceil_char_boundary(start)..]
}

/// Returns the history with `death` added. If the history exceeds [`MAX_HISTORY`], the oldest records are
/// removed.
pub(crate) fn with_death(mut history: Vec<DeathRecord>, death: DeathRecord) -> Vec<DeathRecord> {
    history.push(death);
    let surplus = history.len().saturating_sub(MAX_HISTORY);
    history.drain(..surplus);
    history
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_ends_with_the_text_and_cuts_no_character() {
        assert_eq!(tail("short"), "short");
        let text = "ä".repeat(MAX_OUTPUT);
        assert_eq!(tail(&text).len(), MAX_OUTPUT);
        let odd = format!("{text}x");
        assert_eq!(tail(&odd).len(), MAX_OUTPUT - 1);
    }

    /// A program that reads dead letters as JSON also sees why one of them cannot be read.
    #[test]
    fn a_dead_letter_survives_serialization() {
        let message = r#"{"id":"1","topic":"a.b","body":{"n":1}}"#;
        for message in [Ok(serde_json::from_str(message).unwrap()), Err("no JSON".to_owned())] {
            let letter = DeadLetter {
                id: EntryId::new("e"),
                queue: "q".parse().unwrap(),
                task: None,
                body: if message.is_ok() { Vec::new() } else { b"{".to_vec() },
                message,
                death: DeathRecord {
                    reason: "x".into(),
                    attempts: 1,
                    queued_at_ms: 1,
                    died_at_ms: 2,
                },
                output: "o".to_owned(),
                history: Vec::new(),
            };
            let json = serde_json::to_string(&letter).unwrap();
            let read: DeadLetter = serde_json::from_str(&json).unwrap();
            assert_eq!(format!("{read:?}"), format!("{letter:?}"));
        }
    }

    #[test]
    fn only_the_newest_deaths_are_kept() {
        let death =
            |attempts| DeathRecord { reason: "x".into(), attempts, queued_at_ms: 0, died_at_ms: 0 };
        let history = (0..20).fold(Vec::new(), |history, n| with_death(history, death(n)));
        assert_eq!(history.len(), MAX_HISTORY);
        assert_eq!(history.last(), Some(&death(19)));
    }
}
