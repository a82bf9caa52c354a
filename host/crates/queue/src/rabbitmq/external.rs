//! A message that another program published to one of our queues.

use loopabull_model::{Entry, Reason};

use super::claim::Claim;
use super::headers::Headers;
use super::outgoing::Outgoing;
use crate::error::QueueError;

/// A message that another program published to one of our queues. It has neither task nor attempts.
#[derive(Debug)]
pub struct External {
    pub body: Vec<u8>,
    /// The routing key with which it reached the queue: its topic, if it came through a topic exchange.
    pub routing_key: String,
    /// The property `message-id`.
    pub message_id: Option<String>,
    /// The headers whose values are text, numbers or booleans.
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
            headers: headers.scalars(),
            claim,
        }
    }

    /// Replaces the message with the entries that were made from it, none if no task wants it.
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
