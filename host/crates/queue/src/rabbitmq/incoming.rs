//! Incoming messages: reads an entry or a dead letter from a message of the broker.

use std::time::Duration;

use lapin::message::Delivery as RawDelivery;
use lapin::types::ShortString;
use loopabull_model::{Entry, EntryId, Message, QueueName, Reason, RetryPolicy, TaskName};

use super::headers::{DIED, ENTRY, Headers, OUTPUT, QUEUED, REASON, REMAINING, TASK};
use crate::dead_letter::{DeadLetter, DeathRecord};
use crate::delivered::DeliveredEntry;

/// A message that was read from a queue on the broker.
pub(super) enum Incoming {
    /// An entry, and the part of its delay that remains.
    Entry(Box<DeliveredEntry>, Duration),
    /// A message that another program published.
    External,
    /// An entry that cannot be read, and the reason.
    Unreadable(Reason),
}

/// Returns whether another program published a message.
pub(super) fn is_external(raw: &RawDelivery) -> bool {
    let headers = Headers(raw);
    headers.text(ENTRY).is_none() && headers.text(TASK).is_none()
}

/// Returns since when a message has been in its work queue, in milliseconds since 1970. `None` for an external message, and for
/// an entry that was there before and came back.
pub(super) fn queued_at_ms(raw: &RawDelivery) -> Option<i64> {
    let headers = Headers(raw);
    let is_new = headers.attempts() == 0 && remaining_delay(headers.number(REMAINING)).is_zero();
    (!is_external(raw) && is_new).then(|| headers.number(QUEUED))
}

/// Reads a message of a queue.
pub(super) fn read(queue: &QueueName, raw: &RawDelivery) -> Incoming {
    if is_external(raw) {
        return Incoming::External;
    }
    let headers = Headers(raw);
    match entry(queue, raw) {
        Ok(entry) => {
            let delivered = DeliveredEntry {
                entry,
                attempt: headers.attempts().saturating_add(1),
                queued_at_ms: headers.number(QUEUED),
                history: headers.history(),
                has_runs: None,
            };
            Incoming::Entry(Box::new(delivered), remaining_delay(headers.number(REMAINING)))
        }
        Err(reason) => Incoming::Unreadable(reason.into()),
    }
}

/// Reads a dead letter.
pub(super) fn read_dead_letter(queue: &QueueName, raw: &RawDelivery) -> DeadLetter {
    let headers = Headers(raw);
    let by_broker = || {
        let reason = headers.broker_death_reason().unwrap_or_else(|| "unknown reason".to_owned());
        format!("dead-lettered by the broker: {reason}")
    };
    DeadLetter {
        id: headers.entry_id().unwrap_or_else(|| fingerprint(raw)),
        queue: queue.clone(),
        task: headers.text(TASK).and_then(|task| TaskName::try_from(task).ok()),
        message: entry(queue, raw).map(|entry| entry.message),
        body: raw.data.clone(),
        death: DeathRecord {
            reason: Reason::from(headers.text(REASON).unwrap_or_else(by_broker)).into(),
            attempts: headers.attempts(),
            queued_at_ms: headers.number(QUEUED),
            died_at_ms: headers.number(DIED),
        },
        output: headers.text(OUTPUT).unwrap_or_default(),
        history: headers.history(),
    }
}

/// Returns the entry in a message, or the reason why it cannot be read.
fn entry(queue: &QueueName, raw: &RawDelivery) -> Result<Entry, String> {
    let headers = Headers(raw);
    let text =
        |name: &str| headers.text(name).ok_or_else(|| format!("undecodable: no header `{name}`"));
    let undecodable = |error: &dyn std::fmt::Display| format!("undecodable: {error}");
    text(ENTRY)?;
    let id = headers
        .entry_id()
        .ok_or_else(|| format!("undecodable: the header `{ENTRY}` is not a valid entry id"))?;
    let task = TaskName::try_from(text(TASK)?).map_err(|error| undecodable(&error))?;
    let message: Message =
        serde_json::from_slice(&raw.data).map_err(|error| undecodable(&error))?;
    Ok(Entry { id, queue: queue.clone(), task, message })
}

/// Returns an id for a message without a valid entry id. The id is a hash of the body and of the property
/// `message-id`.
fn fingerprint(raw: &RawDelivery) -> EntryId {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (&raw.data, raw.properties.message_id().as_ref().map(ShortString::as_str)).hash(&mut hasher);
    EntryId::new(format!("external-{:016x}", hasher.finish()))
}

/// Returns the delay that a header names in milliseconds. A delay above the maximum is not from us.
fn remaining_delay(milliseconds: i64) -> Duration {
    let delay = Duration::from_millis(milliseconds.try_into().unwrap_or(0));
    delay.min(RetryPolicy::MAX_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_from_outside_is_bounded() {
        assert_eq!(remaining_delay(1500), Duration::from_millis(1500));
        assert_eq!(remaining_delay(-1), Duration::ZERO);
        assert_eq!(remaining_delay(i64::MAX), RetryPolicy::MAX_DELAY);
    }
}
