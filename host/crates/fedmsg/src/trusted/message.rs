//! The only place where the text of a trusted source becomes a [`Message`].

use loopabull_model::{Body, Message, MessageId, Topic};

use crate::{MAX_BODY_BYTES, Rejection, headers};

/// The AMQP properties of a message.
#[derive(Clone, Copy, Debug)]
pub struct Properties<'a> {
    /// Routing key, if it can be a topic. `None` if it is the name of a queue.
    pub topic: Option<&'a str>,
    pub message_id: Option<&'a str>,
    pub headers: &'a [(String, String)],
}

/// The parts of a message, which were read from one of the formats of trusted sources.
pub(super) struct Parts<'a> {
    /// Publisher's id of the message.
    pub(super) id: Option<&'a str>,
    pub(super) topic: Topic,
    pub(super) headers: Vec<(String, String)>,
    pub(super) sent_at: Option<i64>,
    pub(super) body: Body,
}

impl Parts<'_> {
    /// Makes the message, or refuses it. `content_id` makes the id if the publisher gave none.
    pub(super) fn into_message(
        self,
        content_id: impl FnOnce(&Self) -> MessageId,
    ) -> Result<Message, Rejection> {
        let id = match self.id {
            Some(id) => MessageId::try_from(id)?,
            None => content_id(&self),
        };
        headers::check(&self.headers)?;
        Ok(Message::from_trusted(id, self.topic, self.headers, self.sent_at, self.body))
    }
}

/// Refuses a text that is larger than the maximum size of a body.
pub(super) fn check_size(text: &str) -> Result<(), Rejection> {
    let (length, limit) = (text.len(), MAX_BODY_BYTES);
    if length > limit { Err(Rejection::BodyTooLarge { length, limit }) } else { Ok(()) }
}
