//! An external message: a message that another program published to one of our queues.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use loopabull_model::{Entry, Reason};

use super::claim::Claim;
use super::headers::Headers;
use super::outgoing::Outgoing;
use super::topology::QueueRole;
use crate::error::QueueError;

/// The way in which an external message is settled.
#[derive(Debug)]
pub enum Disposition {
    /// These entries, one for each task that wants the message, take its place. There is at least one.
    Replace(Vec<Entry>),
    /// The message becomes a dead letter of its queue, for this reason. Its body is copied byte for byte.
    DeadLetter(Reason),
}

/// A message that another program published to one of our queues. It has no task and no attempts.
#[derive(Debug)]
pub struct External {
    pub body: Vec<u8>,
    /// Routing key with which the message was published. If the message came through a topic exchange, this
    /// key is its topic.
    pub routing_key: String,
    /// AMQP property `message-id`.
    pub message_id: Option<String>,
    /// All headers, as text in the forms of [`loopabull_amqp::text`].
    pub headers: Vec<(String, String)>,
    claim: Claim,
}

impl External {
    pub(super) fn new(claim: Claim) -> Self {
        let (raw, headers) = (&claim.raw, Headers(&claim.raw));
        Self {
            body: raw.data.clone(),
            routing_key: headers.routing_key().unwrap_or_else(|| raw.routing_key.to_string()),
            message_id: raw.properties.message_id().as_ref().map(ToString::to_string),
            headers: headers.texts(),
            claim,
        }
    }

    /// Settles messages that were received together, and returns the result of each. Publishes what takes their place in windows,
    /// and then acknowledges each message whose copies are all stored.
    ///
    /// After [`QueueError::LostClaim`] a message cannot be settled any more, and the broker redelivers it. After any other
    /// error, the caller may settle it again, with the same entries.
    pub async fn settle_all(messages: &[(&Self, &Disposition)]) -> Vec<Result<(), QueueError>> {
        let valid = join_all(messages.iter().map(|(message, _)| message.claim.is_valid())).await;
        let mut results = Vec::with_capacity(messages.len());
        let mut copies: BTreeMap<String, Vec<(usize, Outgoing)>> = BTreeMap::new();
        for (number, (is_valid, (message, disposition))) in
            valid.into_iter().zip(messages).enumerate()
        {
            if !is_valid {
                results.push(Err(message.lost()));
                continue;
            }
            results.push(Ok(()));
            for copy in message.copies(disposition) {
                copies.entry(copy.name.clone()).or_default().push((number, copy));
            }
        }
        let Some((first, _)) = messages.first() else { return results };
        let generation = first.claim.generation();
        // One queue that accepts nothing delays no other.
        let published = copies.into_values().map(async |group| {
            let (numbers, group): (Vec<_>, Vec<_>) = group.into_iter().unzip();
            numbers.into_iter().zip(first.claim.shared.publish_all(group, Some(generation)).await)
        });
        for (number, published) in join_all(published).await.into_iter().flatten() {
            if let Err(error) = published {
                results[number] = Err(error);
            }
        }
        let ended = messages
            .iter()
            .zip(results)
            .map(async |((message, _), stored)| message.end(stored).await);
        join_all(ended).await
    }

    /// Returns the messages that take the place of this one.
    fn copies(&self, disposition: &Disposition) -> Vec<Outgoing> {
        match disposition {
            Disposition::Replace(entries) => entries.iter().map(Outgoing::new).collect(),
            Disposition::DeadLetter(reason) => {
                let Claim { queue, raw, .. } = &self.claim;
                let copy = Outgoing::unread(queue, QueueRole::Dead, raw);
                vec![copy.dead_lettered(reason, "")]
            }
        }
    }

    /// Acknowledges the message if what takes its place is stored.
    async fn end(&self, stored: Result<(), QueueError>) -> Result<(), QueueError> {
        stored?;
        if self.claim.acknowledge().await? { Ok(()) } else { Err(self.lost()) }
    }

    fn lost(&self) -> QueueError {
        QueueError::LostClaim { message: self.message_id.clone().unwrap_or_default() }
    }
}
