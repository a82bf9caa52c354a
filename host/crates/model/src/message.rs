//! A message, as a task receives it.
//!
//! Only two places make a message from received bytes: the verifier of fedmsg, and the readers of trusted
//! sources. Serde also makes messages, when the host reads an entry back from its own queue. This module
//! knows neither buses nor queues.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Body, Topic};

/// A message that was accepted from a source.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Message {
    /// Publisher's id of the message, the same in each redelivery.
    pub id: MessageId,
    /// Topic of the message. The host chooses the tasks by the topic.
    pub topic: Topic,
    /// Headers: names and values in the order in which they were received.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// Time at which the publisher says that it sent the message, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_at: Option<i64>,
    /// Common name of the signer's certificate, if the signature was checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// Payload of the message.
    pub body: Body,
}

impl Message {
    /// Makes a message of an envelope that the verifier accepted. Only the verifier calls this function.
    pub fn from_verified(
        id: MessageId,
        topic: Topic,
        headers: Vec<(String, String)>,
        sent_at: Option<i64>,
        signer: Option<String>,
        body: Body,
    ) -> Self {
        Self { id, topic, headers, sent_at, signer, body }
    }

    /// Makes a message of a trusted source, without a signer. Only the readers of trusted sources call this
    /// function.
    pub fn from_trusted(
        id: MessageId,
        topic: Topic,
        headers: Vec<(String, String)>,
        sent_at: Option<i64>,
        body: Body,
    ) -> Self {
        Self { id, topic, headers, sent_at, signer: None, body }
    }
}

/// The id that a publisher gave to a message.
///
/// The id has 1 to 200 printable ASCII characters and no space, so that it can be written to a log line, an
/// AMQP property and a table.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Deserialize, Serialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String)]
pub struct MessageId(String);

/// The reason why a text is not a message id.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MessageIdError {
    #[error("message id has {length} bytes, but must have 1 to {limit}", limit = MessageId::MAX_BYTES)]
    Length { length: usize },
    #[error("message id has the forbidden character {character:?}")]
    ForbiddenCharacter { character: char },
}

impl MessageId {
    /// The maximum length of an id, in bytes.
    pub const MAX_BYTES: usize = 200;

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for MessageId {
    type Error = MessageIdError;

    fn try_from(text: String) -> Result<Self, MessageIdError> {
        if text.is_empty() || text.len() > Self::MAX_BYTES {
            return Err(MessageIdError::Length { length: text.len() });
        }
        match text.chars().find(|c| !c.is_ascii_graphic()) {
            Some(character) => Err(MessageIdError::ForbiddenCharacter { character }),
            None => Ok(Self(text)),
        }
    }
}

impl TryFrom<&str> for MessageId {
    type Error = MessageIdError;

    fn try_from(text: &str) -> Result<Self, MessageIdError> {
        Self::try_from(text.to_owned())
    }
}

impl From<MessageId> for String {
    fn from(id: MessageId) -> String {
        id.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_real_buses_are_accepted() {
        for id in ["2017-a9ca6a4b-30d1-4ae0-8ac0-bd5b2b0a8c7e", "sha256:00ff"] {
            assert_eq!(MessageId::try_from(id).unwrap().as_str(), id);
        }
    }

    #[test]
    fn an_id_cannot_break_a_log_line() {
        for id in ["", "a b", "a\nb", "a\u{1b}[2J", "ä"] {
            assert!(MessageId::try_from(id).is_err(), "{id:?}");
        }
        assert!(MessageId::try_from("a".repeat(201)).is_err());
    }

    #[test]
    fn a_message_survives_serialization() {
        let text = r#"{"id":"1","topic":"a.b","headers":[["k","v"],["k","w"]],"sent_at":5,"body":{"n":1e400}}"#;
        let message: Message = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&message).unwrap(), text);
    }
}
