//! A message, as a task receives it.
//!
//! Two places make one from the wire: the verifier of fedmsg, and the readers of trusted sources. Serde
//! reads it back from our own queue. Knows neither bus nor queue.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Body, Topic};

/// A message that was accepted from its source.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Message {
    /// The publisher's id, stable over redeliveries.
    pub id: MessageId,
    /// The topic, by which tasks are chosen.
    pub topic: Topic,
    /// Names and values in the order of the wire.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// The time of sending that the publisher gives, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_at: Option<i64>,
    /// The common name of the signer, if a signature was checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// The payload.
    pub body: Body,
}

impl Message {
    /// Makes a message of an envelope that the verifier accepted. Only the verifier calls this.
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

    /// Makes a message that came from a trusted source and has no signer. Only the readers of
    /// trusted sources call this.
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
/// One to 200 printable ASCII characters without space, so that it fits into a log line, an AMQP
/// property and a table.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct MessageId(String);

/// The reason why a text is not a message id.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MessageIdError {
    #[error("message id has {length} bytes, it must have 1 to {limit}", limit = MessageId::MAX_BYTES)]
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
