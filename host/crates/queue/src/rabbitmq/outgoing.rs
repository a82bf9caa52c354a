//! Outgoing messages: writes an entry as a message for the broker. The body is the entry's message as JSON.
//! All other fields of the entry are headers.

use std::time::Duration;

use lapin::BasicProperties;
use lapin::message::Delivery as RawDelivery;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use loopabull_amqp::{Publication, table_size, text};
use loopabull_model::{Entry, QueueName, Reason};

use super::headers::{
    ATTEMPTS, DIED, ENTRY, HISTORY, Headers, OUTPUT, QUEUED, REASON, REMAINING, ROUTING_KEY, TASK,
};
use super::topology::{DelayHop, QueueRole};
use crate::clock::now_ms;
use crate::dead_letter::{self, DeadLetter, DeathRecord};
use crate::delivered::DeliveredEntry;

/// Maximum size in bytes of the headers of an external message. When we move a message with larger headers,
/// we drop its headers. The broker closes the connection if the headers of a message do not fit into one
/// frame, by default 128 KiB.
const MAX_EXTERNAL_HEADERS: usize = 32 << 10;
/// Maximum size in bytes of the header with the records of earlier dead-letterings.
const MAX_HISTORY: usize = 32 << 10;
/// Maximum length in bytes of a routing key (AMQP 0-9-1: a short string). If the header [`ROUTING_KEY`]
/// contains a longer text, another program wrote it, and we replace it with an empty text.
const MAX_ROUTING_KEY: usize = 255;

/// A message to publish: a new entry, or a copy of a delivered message.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) queue: QueueName,
    pub(super) role: QueueRole,
    /// Name of the queue on the broker.
    pub(super) name: String,
    body: Vec<u8>,
    message_id: String,
    /// Time for which the copy waits in a delay queue.
    pub(super) expiration: Option<Duration>,
    headers: FieldTable,
}

impl Outgoing {
    /// Returns the message for a new entry.
    pub(super) fn new(entry: &Entry) -> Self {
        Self::entry(entry, QueueRole::Work, 0, now_ms(), &[])
    }

    /// Returns a copy of a delivered entry, for the queue with this role. `attempts` is the entry's new count
    /// of attempts.
    pub(super) fn copy(delivered: &DeliveredEntry, role: QueueRole, attempts: u32) -> Self {
        let DeliveredEntry { entry, queued_at_ms, history, .. } = delivered;
        Self::entry(entry, role, attempts, *queued_at_ms, history)
    }

    /// Returns a copy of a delivered entry that the broker moves back to its queue after `delay`.
    pub(super) fn delayed(delivered: &DeliveredEntry, attempts: u32, delay: Duration) -> Self {
        let hop = DelayHop::first(delay);
        let mut copy = Self::copy(delivered, QueueRole::Delay(hop.step), attempts);
        copy.expiration = Some(hop.expiration);
        if !hop.remaining.is_zero() {
            copy.set(REMAINING, AMQPValue::LongLongInt(millis(hop.remaining)));
        }
        copy
    }

    /// Returns the message that requeues a dead letter: a new entry, or an unchanged copy if the entry cannot
    /// be read.
    pub(super) fn requeued(letter: &DeadLetter, raw: &RawDelivery) -> Self {
        let history = dead_letter::with_death(letter.history.clone(), letter.death.clone());
        match (&letter.message, &letter.task) {
            (Ok(message), Some(task)) => {
                let entry = Entry {
                    id: letter.id.requeued(),
                    queue: letter.queue.clone(),
                    task: task.clone(),
                    message: message.clone(),
                };
                Self::entry(&entry, QueueRole::Work, 0, now_ms(), &history)
            }
            _ => {
                let mut copy = Self::unread(&letter.queue, QueueRole::Work, raw);
                copy.set_history(&history);
                copy
            }
        }
    }

    /// Returns a copy of a message that is not a readable entry. The body is copied byte for byte.
    pub(super) fn unread(queue: &QueueName, role: QueueRole, raw: &RawDelivery) -> Self {
        let message_id = raw.properties.message_id().as_ref().map(ToString::to_string);
        let mut copy = Self {
            name: role.name(queue),
            queue: queue.clone(),
            role,
            body: raw.data.clone(),
            message_id: message_id.unwrap_or_default(),
            expiration: None,
            headers: external_headers(raw),
        };
        if !copy.headers.contains_key(ROUTING_KEY) {
            let first = Headers(raw).first_routing_key();
            copy.set(ROUTING_KEY, long(&first.unwrap_or_else(|| raw.routing_key.to_string())));
        }
        let key = copy.headers.inner().get(ROUTING_KEY);
        if key.is_some_and(|key| text(key).len() > MAX_ROUTING_KEY) {
            copy.set(ROUTING_KEY, long(""));
        }
        copy
    }

    /// Adds the headers of a dead letter: the reason, the time, and the end of the output.
    pub(super) fn dead_lettered(mut self, reason: &Reason, output: &str) -> Self {
        self.set(REASON, long(reason.as_str()));
        self.set(DIED, AMQPValue::LongLongInt(now_ms()));
        if !output.is_empty() {
            self.set(OUTPUT, long(dead_letter::tail(output)));
        }
        self
    }

    /// Returns the size of the body in bytes.
    pub(super) fn size(&self) -> usize {
        self.body.len()
    }

    /// Returns the publication for the broker. The message is persistent. It is also mandatory, so the broker
    /// returns it if the queue does not exist.
    pub(super) fn publication(&self) -> Publication<'_> {
        Publication {
            exchange: "",
            routing_key: &self.name,
            body: &self.body,
            properties: self.properties(),
            options: BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() },
        }
    }

    fn properties(&self) -> BasicProperties {
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/json".into())
            .with_message_id(self.message_id.as_str().into())
            .with_headers(self.headers.clone());
        match self.expiration {
            Some(expiration) => {
                properties.with_expiration(expiration.as_millis().to_string().as_str().into())
            }
            None => properties,
        }
    }

    fn entry(
        entry: &Entry,
        role: QueueRole,
        attempts: u32,
        queued_ms: i64,
        history: &[DeathRecord],
    ) -> Self {
        let mut outgoing = Self {
            queue: entry.queue.clone(),
            name: role.name(&entry.queue),
            role,
            body: serde_json::to_vec(&entry.message).expect("a message is always valid JSON"),
            message_id: entry.message.id.to_string(),
            expiration: None,
            headers: FieldTable::default(),
        };
        outgoing.set(ENTRY, long(entry.id.as_str()));
        outgoing.set(TASK, long(entry.task.as_str()));
        outgoing.set(ATTEMPTS, AMQPValue::LongUInt(attempts));
        outgoing.set(QUEUED, AMQPValue::LongLongInt(queued_ms));
        outgoing.set_history(history);
        outgoing
    }

    /// Sets the records of earlier dead-letterings. If the records exceed [`MAX_HISTORY`], the oldest are
    /// omitted.
    fn set_history(&mut self, history: &[DeathRecord]) {
        for first in 0..history.len() {
            let text = serde_json::to_string(&history[first..]);
            let text = text.expect("death records are always valid JSON");
            if text.len() <= MAX_HISTORY {
                return self.set(HISTORY, long(&text));
            }
        }
    }

    fn set(&mut self, name: &str, value: AMQPValue) {
        self.headers.insert(ShortString::from(name), value);
    }
}

/// Returns the headers of an external message that we keep when we move the message. Returns an empty table
/// if the headers exceed [`MAX_EXTERNAL_HEADERS`].
fn external_headers(raw: &RawDelivery) -> FieldTable {
    let headers = raw.properties.headers().clone().unwrap_or_default();
    let is_kept = |name: &str| {
        let is_ours = name.starts_with("loopabull-") || name.starts_with("x-");
        !is_ours || [ROUTING_KEY, HISTORY].contains(&name)
    };
    let mut kept = FieldTable::default();
    for (name, value) in headers.inner().iter().filter(|(name, _)| is_kept(name.as_str())) {
        kept.insert(name.clone(), value.clone());
    }
    if table_size(&kept) > MAX_EXTERNAL_HEADERS + MAX_HISTORY {
        let ours = [ROUTING_KEY, HISTORY].map(|name| (name, kept.inner().get(name).cloned()));
        kept = FieldTable::default();
        for (name, value) in ours {
            if let Some(value) = value {
                kept.insert(name.into(), value);
            }
        }
    }
    kept
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn long(text: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(text))
}
