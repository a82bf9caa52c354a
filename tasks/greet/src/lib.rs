//! Greets whoever publishes a greeting. The task to read first.
//!
//! `greet.toml`, in the folder above, says for which topics it runs.

use loopabull_task::{Context, Message, Result, info, reject, task};
use serde::Deserialize;

/// What this task needs of a message's body. Other fields are skipped; a message without
/// these two goes to the dead letters before `greet` is called.
#[derive(Deserialize)]
pub(crate) struct Greeting {
    /// Who published it.
    from: String,
    /// What they said.
    text: String,
}

/// Answers a greeting with a log line, and notes how many words it had.
///
/// # Errors
///
/// Rejects a greeting without words: it will have none the next time either.
#[task]
pub(crate) fn greet(message: Message<Greeting>, cx: &Context) -> Result {
    let Greeting { from, text } = message.body;
    let words = text.split_whitespace().count();
    if words == 0 {
        return reject(format!("`{from}` said nothing"));
    }

    // From the `[config]` table of the manifest. `cx.require` would reject the
    // message if the manifest did not have it.
    let greeting = cx.config("greeting").unwrap_or_else(|| "Hello".to_owned());

    // Kept with the run: `loopabull-host runs` shows the line and the note.
    info!(topic = message.topic, words, "{greeting}, {from}!");
    cx.note("words", words);
    Ok(())
}

#[cfg(test)]
#[path = "../tests/greet.rs"]
mod tests;
