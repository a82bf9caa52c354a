//! An emission: a message that a task sends.
//!
//! An emission becomes a [`Message`] when the run that made it succeeds. The id of the message is derived
//! from the entry of the run and the position of the emission among all emissions of the run. If the run is
//! repeated after a crash or on another host, its messages have the same ids again.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Body, Entry, Message, MessageId, TaskName, Topic};

/// A message that a task asks the host to send.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Emission {
    pub topic: Topic,
    pub headers: Vec<(String, String)>,
    pub body: Body,
}

impl Emission {
    /// The prefix of the host's own headers. A task must not set such headers.
    pub const HEADER_PREFIX: &str = "loopabull-";
    /// The header with the name of the task that sent the message.
    const SENT_BY: &str = "loopabull-sent-by";
    /// The header with the number of hops. A message that a task sends has one hop more than the message for
    /// which the task ran.
    const HOPS: &str = "loopabull-hops";
    /// The maximum number of hops. This limit stops tasks that send messages to each other in an endless
    /// loop.
    pub const MAX_HOPS: u32 = 16;

    /// Returns the number of hops of a message; 0 for a message from a bus.
    pub fn hops(message: &Message) -> u32 {
        let header = message.headers.iter().rfind(|(name, _)| name == Self::HOPS);
        header.and_then(|(_, hops)| hops.parse().ok()).unwrap_or(0)
    }

    /// Makes the message that the host sends. `entry` is the entry of the run. `place` is the position of the
    /// emission among all emissions of the run, counted from 0. `sent_at` is in seconds since 1970.
    pub fn into_message(self, entry: &Entry, place: usize, sent_at: i64) -> Message {
        let hops = Self::hops(&entry.message).saturating_add(1);
        let ours = [
            (Self::SENT_BY.to_owned(), entry.task.to_string()),
            (Self::HOPS.to_owned(), hops.to_string()),
        ];
        let headers = self.headers.into_iter().chain(ours).collect();
        Message {
            id: emitted_id(entry, place),
            topic: self.topic,
            headers,
            sent_at: Some(sent_at),
            signer: None,
            body: self.body,
        }
    }
}

fn emitted_id(entry: &Entry, place: usize) -> MessageId {
    let mut digest = Sha256::new();
    let task: &TaskName = &entry.task;
    for part in [entry.id.as_str(), task.as_str(), &place.to_string()] {
        digest.update(part);
        digest.update([0]);
    }
    let digest = digest.finalize();
    let hex = hex::encode(&digest[..16]);
    MessageId::try_from(format!("emitted-{hex}"))
        .expect("`emitted-` and hexadecimal digits are a message id")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EntryId, QueueName};

    fn entry(id: &str, headers: &str) -> Entry {
        let json = format!(r#"{{"id":"m-1","topic":"a.b","headers":{headers},"body":1}}"#);
        Entry {
            id: EntryId::new(id),
            queue: QueueName::default(),
            task: "t".try_into().unwrap(),
            message: serde_json::from_str(&json).unwrap(),
        }
    }

    fn emission() -> Emission {
        let topic = "c.d".try_into().unwrap();
        Emission {
            topic,
            headers: vec![("k".into(), "v".into())],
            body: Body::parse("{}").unwrap(),
        }
    }

    #[test]
    fn the_same_entry_and_place_give_the_same_id() {
        let id =
            |entry_id: &str, place| emission().into_message(&entry(entry_id, "[]"), place, 0).id;
        assert_eq!(id("e", 0), id("e", 0));
        assert_ne!(id("e", 0), id("e", 1));
        assert_ne!(id("e", 0), id("f", 0));
    }

    #[test]
    fn a_message_names_its_sender_and_counts_its_hops() {
        let first = emission().into_message(&entry("e", "[]"), 0, 7);
        let texts: Vec<_> = first.headers.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(texts, ["k=v", "loopabull-sent-by=t", "loopabull-hops=1"]);
        assert_eq!(first.sent_at, Some(7));
        let parent = entry("e", r#"[["loopabull-hops","3"]]"#);
        assert_eq!(Emission::hops(&emission().into_message(&parent, 0, 0)), 4);
        let odd = entry("e", r#"[["loopabull-hops","x"]]"#);
        assert_eq!(Emission::hops(&odd.message), 0);
    }
}
