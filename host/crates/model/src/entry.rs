//! An entry of a queue: one message for one task.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::{Message, QueueName, RunId, Task, TaskName};

/// One message for one task, in the queue of that task.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    pub id: EntryId,
    pub queue: QueueName,
    pub task: TaskName,
    pub message: Message,
}

impl Entry {
    /// Makes the entry of a message for a task.
    pub fn new(id: EntryId, task: &Task, message: &Message) -> Self {
        let (queue, task) = (task.manifest.queue.clone(), task.name.clone());
        Self { id, queue, task, message: message.clone() }
    }
}

/// The start of the id of an entry that repeats a run.
const AGAIN: &str = "again-";

/// The id of an entry, which stays the same when the entry is published or delivered again.
///
/// Queues deduplicate entries by this id. So if it is uncertain whether a queue has an entry, the host
/// publishes the entry again. The id of the message cannot be used for this, because the publisher chooses
/// message ids and may use an id twice.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct EntryId(String);

impl EntryId {
    /// Makes an id of a text without checking it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Derives the id of an entry from the name of the task and from the message's id, topic and exact body.
    /// So an entry that is made again after a crash has the same id.
    pub fn derived(message: &Message, task: &TaskName) -> Self {
        let mut digest = Sha256::new();
        for part in
            [task.as_str(), message.id.as_str(), message.topic.as_str(), message.body.as_str()]
        {
            digest.update(part);
            digest.update([0]);
        }
        let digest = digest.finalize();
        Self(hex::encode(&digest[..16]))
    }

    /// Returns the new id with which this entry is requeued from the dead letters. Under the new id the
    /// attempts are counted from 1 again, and earlier runs under the old id do not count as duplicates.
    pub fn requeued(&self) -> Self {
        let (first, life) = match self.0.rsplit_once('~') {
            Some((first, life)) => (first, life.parse().unwrap_or(1_u64)),
            None => (self.0.as_str(), 1),
        };
        Self(format!("{first}~{}", life.saturating_add(1)))
    }

    /// Returns an id with which a run is repeated. `unique` distinguishes several repetitions; both texts are made of letters
    /// and digits.
    pub fn again(run: &RunId, unique: &str) -> Self {
        Self(format!("{AGAIN}{run}-{unique}"))
    }

    /// Returns the run that this entry repeats, if it repeats one.
    pub fn again_of(&self) -> Option<RunId> {
        let (run, _) = self.0.strip_prefix(AGAIN)?.rsplit_once('-')?;
        Some(RunId::new(run))
    }

    /// Returns the start of the ids of all entries that repeat a run.
    pub fn prefix_of_repetitions(run: &RunId) -> String {
        format!("{AGAIN}{run}-")
    }

    /// Returns true if a text is a valid id: 1 to 100 letters, digits, `-` and `~`.
    pub fn is_valid(text: &str) -> bool {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '~');
        (1..=100).contains(&text.len()) && text.chars().all(fits)
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for EntryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_requeue_has_an_id_of_its_own() {
        let second = EntryId::new("e").requeued();
        assert_eq!(second.as_str(), "e~2");
        assert_eq!(second.requeued().as_str(), "e~3");
        assert_eq!(EntryId::new("e~x").requeued().as_str(), "e~2");
    }

    #[test]
    fn a_repetition_knows_its_run() {
        let run = RunId::new("0192f");
        let id = EntryId::again(&run, "7");
        assert!(EntryId::is_valid(id.as_str()));
        assert!(id.as_str().starts_with(&EntryId::prefix_of_repetitions(&run)));
        assert_eq!(id.again_of(), Some(run.clone()));
        assert_eq!(id.requeued().again_of(), Some(run));
        assert_eq!(EntryId::new("0192f").again_of(), None);
        assert_eq!(EntryId::new("again-0192f").again_of(), None);
    }

    #[test]
    fn a_derived_id_depends_on_all_of_message_and_task() {
        let id = |id: &str, topic: &str, body: &str, task: &str| {
            let json = format!(r#"{{"id":"{id}","topic":"{topic}","body":{body}}}"#);
            EntryId::derived(&serde_json::from_str(&json).unwrap(), &task.try_into().unwrap())
        };
        let first = id("m", "a", "1", "t");
        assert!(EntryId::is_valid(first.as_str()));
        assert_eq!(id("m", "a", "1", "t"), first);
        for other in [
            id("n", "a", "1", "t"),
            id("m", "b", "1", "t"),
            id("m", "a", "2", "t"),
            id("m", "a", "1", "u"),
        ] {
            assert_ne!(other, first);
        }
    }
}
