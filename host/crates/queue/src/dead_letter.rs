//! A dead letter: what was set aside, why, and what a person may do with it.

use loopabull_model::{EntryId, Message, QueueName, TaskName};
use serde::{Deserialize, Serialize};

/// How much of a run's output goes with a dead letter, in bytes: the broker keeps it in a header,
/// which with all others must fit into one frame of 128 KiB.
pub const MAX_OUTPUT: usize = 4 << 10;
/// How many earlier lives a dead letter remembers.
pub(crate) const MAX_HISTORY: usize = 10;

/// An entry, or something that never was one, that was set aside.
#[derive(Clone, Debug, Serialize)]
pub struct DeadLetter {
    pub id: EntryId,
    pub queue: QueueName,
    /// Unknown if it could not be read.
    pub task: Option<TaskName>,
    /// Or why it cannot be read.
    #[serde(serialize_with = "message_or_text")]
    pub message: Result<Message, String>,
    /// The bytes as they came.
    #[serde(skip)]
    pub body: Vec<u8>,
    pub burial: Burial,
    /// The end of what its last run printed.
    pub output: String,
    /// Its earlier lives, the first one first.
    pub history: Vec<Burial>,
}

/// How one life of an entry ended.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Burial {
    pub reason: String,
    /// How many attempts it had.
    pub attempts: u32,
    /// When it was first put into the queue, in milliseconds since 1970; 0 if nobody knows.
    pub queued_at_ms: i64,
    /// When it was set aside, in milliseconds since 1970; 0 if nobody knows.
    pub died_at_ms: i64,
}

/// What becomes of a dead letter that somebody looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It stays.
    Keep,
    /// It goes back into its queue and has all its attempts again.
    Requeue,
    /// It is thrown away.
    Drop,
}

/// Returns the end of a text, not longer than [`MAX_OUTPUT`].
pub(crate) fn tail(text: &str) -> &str {
    let start = text.len().saturating_sub(MAX_OUTPUT);
    &text[text.ceil_char_boundary(start)..]
}

/// Adds the life that ended to the earlier ones.
pub(crate) fn remember(mut history: Vec<Burial>, burial: Burial) -> Vec<Burial> {
    history.push(burial);
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
    fn only_the_newest_lives_are_remembered() {
        let burial =
            |attempts| Burial { reason: "x".into(), attempts, queued_at_ms: 0, died_at_ms: 0 };
        let history = (0..20).fold(Vec::new(), |history, n| remember(history, burial(n)));
        assert_eq!(history.len(), MAX_HISTORY);
        assert_eq!(history.last(), Some(&burial(19)));
    }
}
