//! The form of an entry on the broker: the message as JSON in the body, all else in headers.

use std::time::Duration;

use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Channel};
use loopabull_model::{Entry, EntryId, Message, QueueName, Reason, TaskName};

use super::session::Parcel;
use super::table::{integer, plain_text};
use super::topology::{Station, Stay};
use super::{Claim, Raw};
use crate::dead_letter::{self, Burial, DeadLetter};
use crate::delivery::Tag;
use crate::{Delivery, Foreign, now_ms};

/// The id of the entry, the same for every copy.
const ENTRY: &str = "loopabull-entry";
/// The task that the entry is for.
const TASK: &str = "loopabull-task";
/// How many attempts ended before this copy of the entry was published.
const ATTEMPTS: &str = "loopabull-attempts";
/// When the entry was first published, in milliseconds since 1970.
const QUEUED: &str = "loopabull-queued-ms";
/// What is left of a pause when this copy comes back, in milliseconds.
const LEFT: &str = "loopabull-pause-left-ms";
/// Why an entry is among the dead letters, and when it came there.
const REASON: &str = "loopabull-reason";
const DIED: &str = "loopabull-died-ms";
/// The end of its last run's output.
const OUTPUT: &str = "loopabull-output";
/// Its earlier lives, as JSON.
const HISTORY: &str = "loopabull-history";
/// By which something foreign came to us, before we moved it.
const ROUTING_KEY: &str = "loopabull-routing-key";
/// The broker's own, on what it set aside by itself: RabbitMQ 4 has the first, all have the second.
const LAST_DEATH: &str = "x-last-death-reason";
const DEATHS: &str = "x-death";

/// The most that the headers of others may take, in bytes, when we move what they are on: all
/// headers must fit into one frame, which has 128 KiB by default, or the broker ends the connection.
const MAX_FOREIGN_HEADERS: usize = 32 << 10;
/// The most that the earlier lives may take, in bytes.
const MAX_HISTORY: usize = 32 << 10;

/// What is published: a new entry, or a further copy of one.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) queue: QueueName,
    pub(super) station: Station,
    /// The name of the two on the broker.
    pub(super) name: String,
    pub(super) body: Vec<u8>,
    message_id: String,
    expiration: Option<Duration>,
    headers: FieldTable,
}

/// What was read from the broker.
pub(super) enum Read {
    /// An entry, and what is left of its pause.
    Entry(Box<Delivery>, Duration),
    Foreign(Box<Foreign>),
    /// An entry of ours that cannot be read.
    Broken(Tag, Reason),
}

impl Outgoing {
    /// A new entry.
    pub(super) fn new(entry: &Entry) -> Self {
        Self::of(entry, Station::Work, 0, now_ms(), &[])
    }

    /// A copy of an entry that was delivered, after so many attempts.
    pub(super) fn again(delivery: &Delivery, station: Station, attempts: u32) -> Self {
        let Delivery { entry, queued_at_ms, history, .. } = delivery;
        Self::of(entry, station, attempts, *queued_at_ms, history)
    }

    /// A copy for a pause.
    pub(super) fn later(delivery: &Delivery, attempts: u32, pause: Duration) -> Self {
        let stay = Stay::first(pause);
        let mut copy = Self::again(delivery, Station::Wait(stay.step), attempts);
        copy.expiration = Some(stay.expiration);
        if !stay.left.is_zero() {
            copy.set(LEFT, AMQPValue::LongLongInt(millis(stay.left)));
        }
        copy
    }

    /// A dead letter that goes back into its queue, for another life.
    pub(super) fn requeued(letter: &DeadLetter, raw: &Raw) -> Self {
        let history = dead_letter::remember(letter.history.clone(), letter.burial.clone());
        match (&letter.message, &letter.task) {
            (Ok(message), Some(task)) => {
                let entry = Entry {
                    id: letter.id.reborn(),
                    queue: letter.queue.clone(),
                    task: task.clone(),
                    message: message.clone(),
                };
                Self::of(&entry, Station::Work, 0, now_ms(), &history)
            }
            _ => {
                let mut copy = Self::unread(&letter.queue, Station::Work, raw);
                copy.set_history(&history);
                copy
            }
        }
    }

    /// A copy of something that is no entry, byte for byte.
    pub(super) fn unread(queue: &QueueName, station: Station, raw: &Raw) -> Self {
        let message_id = raw.properties.message_id().as_ref().map(ToString::to_string);
        let theirs = raw.properties.headers().clone().unwrap_or_default();
        let is_ours = |name: &str| name.starts_with("loopabull-") || name.starts_with("x-");
        let size = |(name, value): (&ShortString, &AMQPValue)| {
            // The form for people is never shorter than that of the wire.
            name.as_str().len() + format!("{value:?}").len() + 16
        };
        let size: usize = theirs.inner().iter().map(size).sum();
        let mut headers = FieldTable::default();
        if size <= MAX_FOREIGN_HEADERS {
            for (name, value) in theirs.inner() {
                if !is_ours(name.as_str()) || [ROUTING_KEY, HISTORY].contains(&name.as_str()) {
                    headers.insert(name.clone(), value.clone());
                }
            }
        }
        let mut copy = Self {
            name: station.name(queue),
            queue: queue.clone(),
            station,
            body: raw.data.clone(),
            message_id: message_id.unwrap_or_default(),
            expiration: None,
            headers,
        };
        if !copy.headers.contains_key(ROUTING_KEY) {
            let key = Headers(raw).first_key().unwrap_or_else(|| raw.routing_key.to_string());
            copy.set(ROUTING_KEY, long(&key));
        }
        if copy.headers.inner().get(ROUTING_KEY).is_some_and(|key| format!("{key:?}").len() > 300) {
            copy.set(ROUTING_KEY, long(""));
        }
        copy
    }

    /// Says why it is among the dead letters.
    pub(super) fn buried(mut self, reason: &Reason, output: &str) -> Self {
        self.set(REASON, long(reason.as_str()));
        self.set(DIED, AMQPValue::LongLongInt(now_ms()));
        if !output.is_empty() {
            self.set(OUTPUT, long(dead_letter::tail(output)));
        }
        self
    }

    /// Persistent, with all headers.
    /// What goes to the broker. It says so if there is no such queue.
    pub(super) fn parcel(&self) -> Parcel<'_> {
        Parcel {
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

    fn of(
        entry: &Entry,
        station: Station,
        attempts: u32,
        queued_ms: i64,
        history: &[Burial],
    ) -> Self {
        let mut outgoing = Self {
            queue: entry.queue.clone(),
            name: station.name(&entry.queue),
            station,
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

    /// Remembers the earlier lives, the newest first if there is no room for all.
    fn set_history(&mut self, history: &[Burial]) {
        for first in 0..history.len() {
            let text = serde_json::to_string(&history[first..]);
            let text = text.expect("burials are made of JSON types");
            if text.len() <= MAX_HISTORY {
                return self.set(HISTORY, long(&text));
            }
        }
    }

    fn set(&mut self, name: &str, value: AMQPValue) {
        self.headers.insert(ShortString::from(name), value);
    }
}

/// Reads what the broker delivered from a queue.
pub(super) fn read(queue: &QueueName, generation: u64, held_on: Option<Channel>, raw: Raw) -> Read {
    let claim = Claim { generation, held_on, raw: Box::new(raw) };
    let headers = Headers(&claim.raw);
    let left = Duration::from_millis(headers.number(LEFT).try_into().unwrap_or(0));
    if headers.text(ENTRY).is_none() && headers.text(TASK).is_none() {
        let foreign = Foreign {
            body: claim.raw.data.clone(),
            routing_key: headers
                .text(ROUTING_KEY)
                .unwrap_or_else(|| claim.raw.routing_key.to_string()),
            message_id: claim.raw.properties.message_id().as_ref().map(ToString::to_string),
            headers: headers.texts(),
            tag: Tag::Amqp(claim),
        };
        return Read::Foreign(Box::new(foreign));
    }
    match headers.entry(queue) {
        Ok(entry) => {
            let delivery = Delivery {
                entry,
                attempt: headers.attempts().saturating_add(1),
                queued_at_ms: headers.number(QUEUED),
                history: headers.history(),
                tag: Tag::Amqp(claim),
            };
            Read::Entry(Box::new(delivery), left)
        }
        Err(reason) => Read::Broken(Tag::Amqp(claim), reason.into()),
    }
}

/// Reads a dead letter.
pub(super) fn read_dead(queue: &QueueName, raw: &Raw) -> DeadLetter {
    let headers = Headers(raw);
    let entry = headers.entry(queue);
    let broker = || {
        let word = headers.death().unwrap_or_else(|| "an unknown reason".to_owned());
        format!("set aside by the broker: {word}")
    };
    DeadLetter {
        id: EntryId::new(headers.id().unwrap_or_else(|| fingerprint(raw))),
        queue: queue.clone(),
        task: headers.text(TASK).and_then(|task| TaskName::try_from(task).ok()),
        message: entry.map(|entry| entry.message),
        body: raw.data.clone(),
        burial: Burial {
            reason: Reason::from(headers.text(REASON).unwrap_or_else(broker)).into(),
            attempts: headers.attempts(),
            queued_at_ms: headers.number(QUEUED),
            died_at_ms: headers.number(DIED),
        },
        output: headers.text(OUTPUT).unwrap_or_default(),
        history: headers.history(),
    }
}

/// An id for something that has none, by what it is.
fn fingerprint(raw: &Raw) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (&raw.data, raw.properties.message_id().as_ref().map(ShortString::as_str)).hash(&mut hasher);
    format!("foreign-{:016x}", hasher.finish())
}

struct Headers<'a>(&'a Raw);

impl Headers<'_> {
    fn value(&self, name: &str) -> Option<&AMQPValue> {
        self.0.properties.headers().as_ref()?.inner().get(name)
    }

    fn text(&self, name: &str) -> Option<String> {
        match self.value(name)? {
            AMQPValue::LongString(text) => Some(text.to_string()),
            _ => None,
        }
    }

    /// All headers that can be told as text.
    fn texts(&self) -> Vec<(String, String)> {
        let table = self.0.properties.headers().as_ref();
        let headers = table.into_iter().flat_map(|table| table.inner());
        headers.filter_map(|(name, value)| Some((name.to_string(), plain_text(value)?))).collect()
    }

    fn number(&self, name: &str) -> i64 {
        self.value(name).map_or(0, integer)
    }

    fn attempts(&self) -> u32 {
        u32::try_from(self.number(ATTEMPTS).max(0)).unwrap_or(u32::MAX)
    }

    fn id(&self) -> Option<String> {
        self.text(ENTRY).filter(|id| EntryId::is_valid(id))
    }

    /// By which key it was published, if the broker has moved it since.
    fn first_key(&self) -> Option<String> {
        let AMQPValue::FieldArray(deaths) = self.value(DEATHS)? else { return None };
        let AMQPValue::FieldTable(oldest) = deaths.as_slice().last()? else { return None };
        let AMQPValue::FieldArray(keys) = oldest.inner().get("routing-keys")? else { return None };
        match keys.as_slice().first()? {
            AMQPValue::LongString(key) => Some(key.to_string()),
            _ => None,
        }
    }

    /// Why the broker moved it here.
    fn death(&self) -> Option<String> {
        if let Some(reason) = self.text(LAST_DEATH) {
            return Some(reason);
        }
        let AMQPValue::FieldArray(deaths) = self.value(DEATHS)? else { return None };
        // The newest is the first.
        let AMQPValue::FieldTable(newest) = deaths.as_slice().first()? else { return None };
        match newest.inner().get("reason")? {
            AMQPValue::LongString(reason) => Some(reason.to_string()),
            _ => None,
        }
    }

    fn history(&self) -> Vec<Burial> {
        let history = self.text(HISTORY).and_then(|text| serde_json::from_str(&text).ok());
        history.unwrap_or_default()
    }

    fn entry(&self, queue: &QueueName) -> Result<Entry, String> {
        let text =
            |name: &str| self.text(name).ok_or_else(|| format!("undecodable: no header `{name}`"));
        let undecodable = |error: &dyn std::fmt::Display| format!("undecodable: {error}");
        text(ENTRY)?;
        let id = self.id().ok_or_else(|| format!("undecodable: `{ENTRY}` is no id of an entry"))?;
        let id = EntryId::new(id);
        let task = TaskName::try_from(text(TASK)?).map_err(|error| undecodable(&error))?;
        let message: Message =
            serde_json::from_slice(&self.0.data).map_err(|error| undecodable(&error))?;
        Ok(Entry { id, queue: queue.clone(), task, message })
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn long(text: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(text))
}
