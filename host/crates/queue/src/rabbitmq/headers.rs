//! The headers of an entry on the broker: their names, and the functions that read them.

use lapin::message::Delivery as RawDelivery;
use lapin::types::AMQPValue;
use loopabull_amqp::integer;
use loopabull_model::EntryId;

use crate::dead_letter::DeathRecord;

/// Id of the entry. All copies of an entry have the same id.
pub(super) const ENTRY: &str = "loopabull-entry";
/// Name of the entry's task.
pub(super) const TASK: &str = "loopabull-task";
/// Number of attempts that had ended when this copy of the entry was published.
pub(super) const ATTEMPTS: &str = "loopabull-attempts";
/// Time at which the entry was first published, in milliseconds since 1970.
pub(super) const QUEUED: &str = "loopabull-queued-ms";
/// Delay that remains after this copy leaves its delay queue, in milliseconds.
pub(super) const REMAINING: &str = "loopabull-delay-left-ms";
/// Reason why the entry became a dead letter.
pub(super) const REASON: &str = "loopabull-reason";
/// Time at which the entry became a dead letter, in milliseconds since 1970.
pub(super) const DIED: &str = "loopabull-died-ms";
/// End of the output of the entry's last run.
pub(super) const OUTPUT: &str = "loopabull-output";
/// Records of earlier dead-letterings of the entry, as JSON.
pub(super) const HISTORY: &str = "loopabull-history";
/// Routing key with which an external message was published. We set this header when we move the message.
pub(super) const ROUTING_KEY: &str = "loopabull-routing-key";
/// Headers that the broker sets when it dead-letters a message by itself. RabbitMQ 4 sets
/// `x-last-death-reason`, and all versions set `x-death`.
const LAST_DEATH: &str = "x-last-death-reason";
const DEATHS: &str = "x-death";

/// The headers of a delivery.
pub(super) struct Headers<'a>(pub(super) &'a RawDelivery);

impl Headers<'_> {
    fn value(&self, name: &str) -> Option<&AMQPValue> {
        self.0.properties.headers().as_ref()?.inner().get(name)
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        match self.value(name)? {
            AMQPValue::LongString(text) => Some(text.to_string()),
            _ => None,
        }
    }

    pub(super) fn number(&self, name: &str) -> i64 {
        self.value(name).map_or(0, integer)
    }

    /// Returns all headers as text, in the forms of [`loopabull_amqp::text`].
    pub(super) fn texts(&self) -> Vec<(String, String)> {
        let table = self.0.properties.headers().as_ref();
        let headers = table.into_iter().flat_map(|table| table.inner());
        headers.map(|(name, value)| (name.to_string(), loopabull_amqp::text(value))).collect()
    }

    pub(super) fn attempts(&self) -> u32 {
        u32::try_from(self.number(ATTEMPTS).max(0)).unwrap_or(u32::MAX)
    }

    /// Returns the id of the entry; `None` if the header is missing or is not a valid id.
    pub(super) fn entry_id(&self) -> Option<EntryId> {
        self.text(ENTRY).filter(|id| EntryId::is_valid(id)).map(EntryId::new)
    }

    pub(super) fn history(&self) -> Vec<DeathRecord> {
        let history = self.text(HISTORY).and_then(|text| serde_json::from_str(&text).ok());
        history.unwrap_or_default()
    }

    /// Returns the routing key with which an external message was published, if we saved it when we moved the
    /// message.
    pub(super) fn routing_key(&self) -> Option<String> {
        self.text(ROUTING_KEY)
    }

    /// Returns the routing key with which a message was first published, if the broker has dead-lettered the
    /// message since.
    pub(super) fn first_routing_key(&self) -> Option<String> {
        let AMQPValue::FieldArray(deaths) = self.value(DEATHS)? else { return None };
        let AMQPValue::FieldTable(oldest) = deaths.as_slice().last()? else { return None };
        let AMQPValue::FieldArray(keys) = oldest.inner().get("routing-keys")? else { return None };
        match keys.as_slice().first()? {
            AMQPValue::LongString(key) => Some(key.to_string()),
            _ => None,
        }
    }

    /// Returns the reason why the broker dead-lettered the message, if the broker did.
    pub(super) fn broker_death_reason(&self) -> Option<String> {
        if let Some(reason) = self.text(LAST_DEATH) {
            return Some(reason);
        }
        let AMQPValue::FieldArray(deaths) = self.value(DEATHS)? else { return None };
        // The first element of `x-death` is the latest dead-lettering.
        let AMQPValue::FieldTable(newest) = deaths.as_slice().first()? else { return None };
        match newest.inner().get("reason")? {
            AMQPValue::LongString(reason) => Some(reason.to_string()),
            _ => None,
        }
    }
}
