//! The form of an entry on the broker: the message as JSON in the body, all else in headers.

use lapin::BasicProperties;
use lapin::message::Delivery as Claim;
use lapin::types::{AMQPValue, FieldTable, LongString};
use loopabull_model::{EntryId, Message, Reason, TaskName};

use crate::Delivery;
use crate::delivery::Tag;

/// The id of the entry, the same for every copy.
const ENTRY: &str = "loopabull-entry";
/// The task that the entry is for.
const TASK: &str = "loopabull-task";
/// How many attempts ended before this copy of the entry was published.
const ATTEMPTS: &str = "loopabull-attempts";
/// Why an entry is among the dead letters.
const REASON: &str = "loopabull-reason";
/// Kept by the broker: how often a quorum queue has delivered this copy before.
const DELIVERY_COUNT: &str = "x-delivery-count";

/// What is published: a new entry, or a further copy of one.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) queue: String,
    pub(super) body: Vec<u8>,
    message_id: String,
    headers: FieldTable,
}

impl Entry {
    /// A new entry.
    pub(super) fn new(queue: &str, message: &Message, task: &TaskName) -> Self {
        let id = EntryId::new(uuid::Uuid::new_v4().simple().to_string());
        Self::of(queue, &id, message, task, 0)
    }

    /// A copy of an entry that was delivered, after so many attempts.
    pub(super) fn again(queue: &str, delivery: &Delivery, attempts: u32) -> Self {
        Self::of(queue, &delivery.entry, &delivery.message, &delivery.task, attempts)
    }

    /// A copy of something that cannot be read, byte for byte.
    pub(super) fn unread(queue: &str, claim: &Claim) -> Self {
        let message_id = claim.properties.message_id().as_ref().map(ToString::to_string);
        Self {
            queue: queue.to_owned(),
            body: claim.data.clone(),
            message_id: message_id.unwrap_or_default(),
            headers: FieldTable::default(),
        }
    }

    /// Says why it is among the dead letters.
    pub(super) fn with_reason(mut self, reason: &Reason) -> Self {
        self.headers.insert(REASON.into(), long(reason.as_str()));
        self
    }

    /// Persistent, with all headers.
    pub(super) fn properties(&self) -> BasicProperties {
        BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/json".into())
            .with_message_id(self.message_id.as_str().into())
            .with_headers(self.headers.clone())
    }

    fn of(queue: &str, id: &EntryId, message: &Message, task: &TaskName, attempts: u32) -> Self {
        let mut headers = FieldTable::default();
        headers.insert(ENTRY.into(), long(id.as_str()));
        headers.insert(TASK.into(), long(task.as_str()));
        headers.insert(ATTEMPTS.into(), AMQPValue::LongUInt(attempts));
        Self {
            queue: queue.to_owned(),
            body: serde_json::to_vec(message).expect("a message is made of JSON types"),
            message_id: message.id.to_string(),
            headers,
        }
    }
}

/// Reads an entry from what the broker delivered, or says why it is none.
pub(super) fn read(claim: Claim) -> Result<Delivery, (Box<Claim>, Reason)> {
    let claim = Box::new(claim);
    let headers = claim.properties.headers();
    let header = |name: &str| headers.as_ref().and_then(|table| table.inner().get(name));
    let text = |name: &str| match header(name) {
        Some(AMQPValue::LongString(text)) => Ok(text.to_string()),
        _ => Err(format!("undecodable: no header `{name}`")),
    };
    let undecodable = |error: &dyn std::fmt::Display| format!("undecodable: {error}");
    let parts = text(ENTRY).and_then(|entry| {
        let task = TaskName::try_from(text(TASK)?).map_err(|error| undecodable(&error))?;
        let message: Message =
            serde_json::from_slice(&claim.data).map_err(|error| undecodable(&error))?;
        Ok((EntryId::new(entry), task, message))
    });
    // Ours counts the copies, the broker's counts how often this copy came back from a crash. A
    // classic queue that was there before us does not count, but it tells a second delivery.
    let crashes = number(header(DELIVERY_COUNT)).max(claim.redelivered.into());
    let attempts = number(header(ATTEMPTS)).saturating_add(crashes);
    match parts {
        Ok((entry, task, message)) => Ok(Delivery {
            entry,
            message,
            task,
            attempt: attempts.saturating_add(1),
            tag: Tag::Amqp(claim),
        }),
        Err(reason) => Err((claim, reason.into())),
    }
}

fn number(value: Option<&AMQPValue>) -> u32 {
    let number = match value {
        Some(AMQPValue::LongUInt(number)) => i64::from(*number),
        Some(AMQPValue::LongInt(number)) => i64::from(*number),
        Some(AMQPValue::LongLongInt(number)) => *number,
        _ => 0,
    };
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
}

fn long(text: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(text))
}
