//! An external message: a message that another program published to one of our queues.

use loopabull_model::{Entry, Reason};

use super::claim::Claim;
use super::headers::Headers;
use super::outgoing::Outgoing;
use crate::error::QueueError;

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

    /// Publishes the entries that were made from the message, and acknowledges the message. `entries` is
    /// empty if no task wants the message.
    pub async fn replace(&self, entries: &[Entry]) -> Result<(), QueueError> {
        for entry in entries {
            self.claim.shared.publish(&Outgoing::new(entry)).await?;
        }
        self.claim.acknowledge().await.map(|_| ())
    }

    /// Moves the message to the dead letters of its queue.
    pub async fn refuse(&self, reason: &Reason) -> Result<(), QueueError> {
        self.claim.dead_letter_unread(reason).await
    }
}
