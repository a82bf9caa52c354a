//! A dead letter: its content, why it was dead-lettered, and an operator's verdict on it.

use loopabull_model::{EntryId, Message, QueueName, TaskName};
use serde::{Deserialize, Serialize};

/// How many bytes of a run's output a dead letter keeps. The broker stores it in a header, and all headers
/// together must fit into one frame of 128 KiB.
pub const MAX_OUTPUT: usize = 4 << 10;
/// How many earlier deaths a dead letter keeps.
pub(crate) const MAX_HISTORY: usize = 10;

/// A dead-lettered entry, or an external message that was dead-lettered.
#[derive(Clone, Debug, Serialize)]
pub struct DeadLetter {
    pub id: EntryId,
    pub queue: QueueName,
    /// `None` if it cannot be read.
    pub task: Option<TaskName>,
    /// The message, or why it cannot be read.
    #[serde(serialize_with = "message_or_text")]
    pub message: Result<Message, String>,
    /// The bytes as they arrived.
    #[serde(skip)]
    pub body: Vec<u8>,
    pub death: DeathRecord,
    /// The end of its last run's output.
    pub output: String,
    /// Its earlier deaths, the oldest first.
    pub history: Vec<DeathRecord>,
}

/// Why and when an entry became a dead letter.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct DeathRecord {
    pub reason: String,
    /// How many attempts the entry had.
    pub attempts: u32,
    /// When the entry was first published, in milliseconds since 1970; 0 if unknown.
    pub queued_at_ms: i64,
    /// When it became a dead letter, in milliseconds since 1970; 0 if unknown.
    pub died_at_ms: i64,
}

/// An operator's verdict on a dead letter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The dead letter stays.
    Keep,
    /// The dead letter returns to its queue, with all its attempts.
    Requeue,
    /// The dead letter is deleted.
    Drop,
}

/// Returns the end of a text, of at most [`MAX_OUTPUT`] bytes.
pub(crate) fn tail(text: &str) -> &str {
    let start = text.len().saturating_sub(MAX_OUTPUT);
    &text[text.ceil_char_boundary(start)..]
}

/// Returns the history with another death added, and the oldest ones removed beyond the limit.
pub(crate) fn with_death(mut history: Vec<DeathRecord>, death: DeathRecord) -> Vec<DeathRecord> {
    history.push(death);
    let surplus = history.len().saturating_sub(MAX_HISTORY);
    history.drain(..surplus);
    history
}

fn message_or_text<S: serde::Serializer>(
    message: &Result<Message, String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    message.as_ref().ok().serialize(serializer)
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

    #[test]
    fn only_the_newest_deaths_are_kept() {
        let death =
            |attempts| DeathRecord { reason: "x".into(), attempts, queued_at_ms: 0, died_at_ms: 0 };
        let history = (0..20).fold(Vec::new(), |history, n| with_death(history, death(n)));
        assert_eq!(history.len(), MAX_HISTORY);
        assert_eq!(history.last(), Some(&death(19)));
    }
}
