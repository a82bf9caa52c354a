//! An entry as it is published to the broker: the message as JSON in the body, all else in headers.

use std::time::Duration;

use lapin::BasicProperties;
use lapin::message::Delivery as RawDelivery;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use loopabull_amqp::Publication;
use loopabull_model::{Entry, QueueName, Reason};

use super::headers::{
    ATTEMPTS, DIED, ENTRY, HISTORY, Headers, OUTPUT, QUEUED, REASON, REMAINING, ROUTING_KEY, TASK,
};
use super::topology::{DelayHop, QueueRole};
use crate::clock::now_ms;
use crate::dead_letter::{self, DeadLetter, DeathRecord};
use crate::delivered::DeliveredEntry;

/// How many bytes the headers of an external message may have when we move it. All headers must fit into
/// one frame, of 128 KiB by default, or the broker closes the connection.
const MAX_EXTERNAL_HEADERS: usize = 32 << 10;
/// How many bytes the header with the earlier deaths may have.
const MAX_HISTORY: usize = 32 << 10;
/// How many bytes a routing key may have in its printed form: 255 bytes on the wire, and quotes.
const MAX_ROUTING_KEY: usize = 300;

/// An entry to publish: a new one, or another copy of a delivered one.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) queue: QueueName,
    pub(super) role: QueueRole,
    /// The name of the queue on the broker.
    pub(super) name: String,
    body: Vec<u8>,
    message_id: String,
    expiration: Option<Duration>,
    headers: FieldTable,
}

impl Outgoing {
    /// Returns a new entry.
    pub(super) fn new(entry: &Entry) -> Self {
        Self::entry(entry, QueueRole::Work, 0, now_ms(), &[])
    }

    /// Returns a copy of a delivered entry, after `attempts` settled attempts.
    pub(super) fn copy(delivered: &DeliveredEntry, role: QueueRole, attempts: u32) -> Self {
        let DeliveredEntry { entry, queued_at_ms, history, .. } = delivered;
        Self::entry(entry, role, attempts, *queued_at_ms, history)
    }

    /// Returns a copy of a delivered entry that returns to its queue after a delay.
    pub(super) fn delayed(delivered: &DeliveredEntry, attempts: u32, delay: Duration) -> Self {
        let hop = DelayHop::first(delay);
        let mut copy = Self::copy(delivered, QueueRole::Delay(hop.step), attempts);
        copy.expiration = Some(hop.expiration);
        if !hop.remaining.is_zero() {
            copy.set(REMAINING, AMQPValue::LongLongInt(millis(hop.remaining)));
        }
        copy
    }

    /// Returns a dead letter as a new entry of its queue.
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

    /// Returns a copy of a message that is not an entry, byte for byte.
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
        if key.is_some_and(|key| format!("{key:?}").len() > MAX_ROUTING_KEY) {
            copy.set(ROUTING_KEY, long(""));
        }
        copy
    }

    /// Adds why the message becomes a dead letter.
    pub(super) fn dead_lettered(mut self, reason: &Reason, output: &str) -> Self {
        self.set(REASON, long(reason.as_str()));
        self.set(DIED, AMQPValue::LongLongInt(now_ms()));
        if !output.is_empty() {
            self.set(OUTPUT, long(dead_letter::tail(output)));
        }
        self
    }

    /// Returns the persistent message for the broker, which returns it if the queue does not exist.
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
            body: serde_json::to_vec(&entry.message).expect("a message is made of JSON types"),
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

    /// Sets the earlier deaths, without the oldest ones if they do not all fit.
    fn set_history(&mut self, history: &[DeathRecord]) {
        for first in 0..history.len() {
            let text = serde_json::to_string(&history[first..]);
            let text = text.expect("death records are made of JSON types");
            if text.len() <= MAX_HISTORY {
                return self.set(HISTORY, long(&text));
            }
        }
    }

    fn set(&mut self, name: &str, value: AMQPValue) {
        self.headers.insert(ShortString::from(name), value);
    }
}

/// Returns the headers of an external message that we keep when we move it: none if they are too large.
fn external_headers(raw: &RawDelivery) -> FieldTable {
    let headers = raw.properties.headers().clone().unwrap_or_default();
    let is_kept = |name: &str| {
        let is_ours = name.starts_with("loopabull-") || name.starts_with("x-");
        !is_ours || [ROUTING_KEY, HISTORY].contains(&name)
    };
    let size = |(name, value): (&ShortString, &AMQPValue)| {
        // The debug form is never shorter than the wire form.
        name.as_str().len() + format!("{value:?}").len() + 16
    };
    let mut kept = FieldTable::default();
    if headers.inner().iter().map(size).sum::<usize>() <= MAX_EXTERNAL_HEADERS {
        for (name, value) in headers.inner().iter().filter(|(name, _)| is_kept(name.as_str())) {
            kept.insert(name.clone(), value.clone());
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
