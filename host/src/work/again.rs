//! Repeats a run: with the same message, or with an edited copy of it.
//!
//! The repetition is a new entry for the same task. It is not recognised as a duplicate, its attempts are counted from 1, and the
//! original run stays as it is. The id of the entry names the run that it repeats.

use loopabull_fedmsg::Rejection;
use loopabull_fedmsg::trusted::{Properties, from_bus};
use loopabull_model::{Entry, EntryId, Message, MessageId, Routes, RunId, TaskName};
use loopabull_store::StoreError;

use crate::journal::Journal;

/// The reason why a run cannot be repeated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgainError {
    #[error("no run has the id `{0}`")]
    NoRun(RunId),
    #[error(
        "the message of run `{0}` is not stored: it is larger than 256 KiB, or the run did not count as an attempt and the host tries again"
    )]
    NoMessage(RunId),
    #[error("task `{0}` is not installed, or its manifest cannot be read")]
    NoTask(TaskName),
    #[error("this cannot be the body of a message: {0}")]
    Body(Rejection),
    #[error("cannot read the journal")]
    Journal(#[from] StoreError),
}

/// Returns the message of a run.
pub(crate) async fn message(journal: &Journal, run: &RunId) -> Result<Message, AgainError> {
    if journal.find(run.clone()).await?.is_none() {
        return Err(AgainError::NoRun(run.clone()));
    }
    journal.message(run.clone()).await?.ok_or_else(|| AgainError::NoMessage(run.clone()))
}

/// Returns the entry that repeats a run. `body` replaces the body of the message: a JSON text.
pub(crate) async fn entry(
    journal: &Journal,
    routes: &Routes,
    run: &RunId,
    body: Option<&str>,
) -> Result<Entry, AgainError> {
    let message = message(journal, run).await?;
    let found = journal.find(run.clone()).await?.ok_or_else(|| AgainError::NoRun(run.clone()))?;
    let task = routes.task(&found.task).ok_or(AgainError::NoTask(found.task))?;
    let unique = uuid::Uuid::new_v4().simple().to_string();
    let unique = &unique[..12];
    let message = match body {
        Some(body) => edited(&message, body, unique).map_err(AgainError::Body)?,
        None => message,
    };
    Ok(Entry::new(EntryId::again(run, unique), task, &message))
}

/// Returns a copy of a message with another body. It has an id of its own, and is not signed.
fn edited(message: &Message, body: &str, unique: &str) -> Result<Message, Rejection> {
    let suffix = format!(".edited-{unique}");
    // The id has only ASCII characters.
    let length = message.id.as_str().len().min(MessageId::MAX_BYTES - suffix.len());
    let id = message.id.as_str()[..length].to_owned() + &suffix;
    let properties = Properties {
        topic: Some(message.topic.as_str()),
        message_id: Some(&id),
        headers: &message.headers,
    };
    from_bus(body, properties, message.sent_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: &str) -> Message {
        let json = format!(
            r#"{{"id":"{id}","topic":"a.b","headers":[["h","1"]],"sent_at":7,"signer":"s","body":{{"n":1}}}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn an_edited_copy_has_an_id_of_its_own_and_no_signer() {
        let copy = edited(&message("m"), r#"{"n": 1.50}"#, "x").unwrap();
        assert_eq!((copy.id.as_str(), copy.topic.as_str()), ("m.edited-x", "a.b"));
        assert_eq!((copy.body.as_str(), copy.sent_at), (r#"{"n": 1.50}"#, Some(7)));
        assert_eq!(copy.headers, [("h".to_owned(), "1".to_owned())]);
        assert_eq!(copy.signer, None);
        let long = edited(&message(&"m".repeat(MessageId::MAX_BYTES)), "{}", "x").unwrap();
        assert_eq!(long.id.as_str().len(), MessageId::MAX_BYTES);
        for body in ["", "[1]", "{", "{\"a\":\"\\ud800\"}"] {
            assert!(edited(&message("m"), body, "x").is_err(), "{body}");
        }
    }
}
