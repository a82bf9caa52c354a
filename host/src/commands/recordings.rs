//! Files of recorded messages, as the commands `inject`, `test` and `verify` read them.

use std::io::Read;
use std::path::Path;

use anyhow::Context;
use loopabull_fedmsg::trusted;
use loopabull_model::Message;
use serde::Deserialize;
use serde_json::value::RawValue;

/// An answer of datagrepper, as far as it is needed here.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    raw_messages: Vec<&'a RawValue>,
    /// A message has a topic, an answer has none.
    topic: Option<&'a RawValue>,
}

/// Reads a file, or standard input if the path is `-`.
pub(crate) fn read(file: &Path) -> anyhow::Result<String> {
    if file.as_os_str() != "-" {
        return std::fs::read_to_string(file)
            .with_context(|| format!("cannot read `{}`", file.display()));
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
    Ok(text)
}

/// Returns the JSON text of each message in the text of a file. Each document of the file is a message, an
/// array of messages, or an answer of datagrepper. An error is the last item: the rest of the text cannot be
/// read.
pub(crate) fn documents(text: &str) -> Vec<Result<&str, String>> {
    // Editors of Windows begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Vec::new();
    for document in serde_json::Deserializer::from_str(text).into_iter::<&RawValue>() {
        match document {
            Ok(document) => match several(document.get()) {
                Some(messages) => found.extend(messages.into_iter().map(|one| Ok(one.get()))),
                None => found.push(Ok(document.get())),
            },
            Err(error) => {
                found.push(Err(format!("{error}; the rest of the file was not read")));
                break;
            }
        }
    }
    found
}

/// Returns the messages of an array or of an answer of datagrepper.
fn several(document: &str) -> Option<Vec<&RawValue>> {
    if document.starts_with('[') {
        return serde_json::from_str(document).ok();
    }
    let answer: Answer<'_> = serde_json::from_str(document).ok()?;
    answer.topic.is_none().then_some(answer.raw_messages)
}

/// Returns the messages in the text of a file, without a check of their signatures.
pub(crate) fn messages(text: &str) -> impl Iterator<Item = Result<Message, String>> {
    documents(text).into_iter().map(|document| {
        trusted::from_recording(document?.as_bytes()).map_err(|rejection| rejection.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Vec<String> {
        let id = |message: Result<Message, String>| match message {
            Ok(message) => message.id.to_string(),
            Err(error) => error,
        };
        messages(text).map(id).collect()
    }

    #[test]
    fn documents_arrays_and_answers_contain_messages() {
        let one =
            |id: &str| format!(r#"{{"topic":"a","msg_id":"{id}","msg":{{"raw_messages":[]}}}}"#);
        let [a, b, c, d] = ["1", "2", "3", "4"].map(one);
        let answer = format!(r#"{{"count":1,"raw_messages":[{c}],"total":1}}"#);
        let text = format!("\u{feff}{a}\n [{b}] []\n{answer}{d}");
        assert_eq!(ids(&text), ["1", "2", "3", "4"]);
        assert!(ids(" \u{feff} ")[0].contains("the rest of the file was not read"));
        assert!(ids("").is_empty());
    }

    #[test]
    fn a_message_with_a_key_of_answers_stays_a_message() {
        let text = r#"{"topic":"a","msg_id":"1","msg":{},"raw_messages":[]}"#;
        assert_eq!(ids(text), ["1"]);
    }

    #[test]
    fn what_follows_an_error_is_not_read() {
        let one = r#"{"topic":"a","msg_id":"1","msg":{}}"#;
        let found = ids(&format!("{one} {{\"topic\" {one}"));
        assert_eq!(found.len(), 2);
        assert!(found[1].ends_with("the rest of the file was not read"), "{found:?}");
        assert!(ids("[1, [2]]").iter().all(|error| error.contains("message")), "{:?}", ids("[1]"));
    }
}
