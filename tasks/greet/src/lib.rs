//! Answers a greeting with a log line. Read this example first.
//!
//! The manifest `greet.toml`, in the parent folder, sets the topics of the task.

use loopabull_task::{Context, Message, Result, info, reject, task};
use serde::Deserialize;

/// The part of a message's body that this task reads. Other fields are ignored. A message without
/// these two moves to the dead-letter queue before `greet` is called.
#[derive(Deserialize)]
pub(crate) struct Greeting {
    /// The sender.
    from: String,
    /// The text of the greeting.
    text: String,
}

/// Answers a greeting with a log line, and notes the number of its words.
///
/// # Errors
///
/// Rejects a greeting without words, because another attempt would find none either.
#[task]
pub(crate) fn greet(message: Message<Greeting>, cx: &Context) -> Result {
    let Greeting { from, text } = message.body;
    let words = text.split_whitespace().count();
    if words == 0 {
        return reject(format!("`{from}` said nothing"));
    }

    // The value is in the `[config]` table of the manifest. `cx.require` would reject the message if
    // it were missing.
    let greeting = cx.config("greeting").unwrap_or_else(|| "Hello".to_owned());

    // The log line and the note are stored with the run; `loopabull-host runs` shows them.
    info!(topic = message.topic, words, "{greeting}, {from}!");
    cx.note("words", words);
    Ok(())
}

#[cfg(test)]
#[path = "../tests/greet.rs"]
mod tests;
