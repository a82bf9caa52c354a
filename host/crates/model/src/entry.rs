//! An entry of a queue: one message for one task.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Message, MessageId, QueueName, TaskName};

/// One message for one task, in the queue of that task.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    pub id: EntryId,
    pub queue: QueueName,
    pub task: TaskName,
    pub message: Message,
}

/// The id of an entry, the same however often it is published or delivered.
///
/// Two entries of one id are one: whoever is not sure that an entry was taken may publish it again.
/// A message's own id will not do: the publisher chooses it, and may choose it twice.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct EntryId(String);

impl EntryId {
    /// Takes a text as the id of an entry.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Makes the id of an entry that may have to be made from the same message again, after a
    /// crash: the same message id and task give the same.
    pub fn derived(message: &MessageId, task: &TaskName) -> Self {
        let digest = Sha256::new().chain_update(message.as_str()).chain_update([0]);
        let digest = digest.chain_update(task.as_str()).finalize();
        Self(digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect())
    }

    /// Returns the id of this entry's next life: a dead letter that is put back into its queue
    /// starts anew, and must not be taken for the one that had its runs.
    pub fn reborn(&self) -> Self {
        let (first, life) = match self.0.rsplit_once('~') {
            Some((first, life)) => (first, life.parse().unwrap_or(1_u64)),
            None => (self.0.as_str(), 1),
        };
        Self(format!("{first}~{}", life.saturating_add(1)))
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
    fn each_life_has_an_id_of_its_own() {
        let second = EntryId::new("e").reborn();
        assert_eq!(second.as_str(), "e~2");
        assert_eq!(second.reborn().as_str(), "e~3");
        assert_eq!(EntryId::new("e~x").reborn().as_str(), "e~2");
    }

    #[test]
    fn a_derived_id_depends_on_message_and_task() {
        let id = |message: &str, task: &str| {
            EntryId::derived(&message.try_into().unwrap(), &task.try_into().unwrap())
        };
        assert_eq!(id("m", "t"), id("m", "t"));
        assert_ne!(id("m", "t"), id("m", "u"));
        assert_ne!(id("m", "tt"), id("mt", "t"));
    }
}
