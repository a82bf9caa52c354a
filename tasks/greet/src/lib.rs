//! Answers a greeting with a log line. Read this example first.
//!
//! The manifest `greet.toml`, in the parent folder, sets the topics of the task.

use loopabull_task::{Context, Message, Result, info, reject, task};
use serde::Deserialize;

/// The fields of a message's body that this task reads. Other fields are ignored. A message that lacks one of
/// these fields moves to the dead-letter queue before `greet` is called.
#[derive(Deserialize)]
pub(crate) struct Greeting {
    /// The sender.
    from: String,
    /// The text of the greeting.
    text: String,
}

/// Answers a greeting with a log line, and stores a note with the number of words.
///
/// # Errors
///
/// Rejects a greeting without words, because another attempt would fail too.
#[task]
pub(crate) fn greet(message: Message<Greeting>, cx: &Context) -> Result {
    let Greeting { from, text } = message.body;
    let words = text.split_whitespace().count();
    if words == 0 {
        return reject(format!("`{from}` said nothing"));
    }

    // The value comes from the `[config]` table of the manifest. If the value were required, the task would
    // call `cx.require`, which rejects the message if the value is missing.
    let greeting = cx.config("greeting").unwrap_or_else(|| "Hello".to_owned());

    // The log line and the note are stored with the run. `loopabull-host runs show ID` shows both.
    info!(topic = message.topic, words, "{greeting}, {from}!");
    cx.note("words", words);
    Ok(())
}

#[cfg(test)]
#[path = "../tests/greet.rs"]
mod tests;
