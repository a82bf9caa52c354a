//! A delivery of a bus: its content, and the functions that settle the delivery.

use std::borrow::Cow;

use lapin::Acker;
use lapin::message::Delivery as RawDelivery;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use loopabull_amqp::STEP_TIMEOUT;

/// A delivery of a bus. If the delivery is dropped without being settled, the broker redelivers the message
/// when the channel closes.
#[derive(Debug)]
pub struct BusDelivery {
    pub body: Vec<u8>,
    /// Routing key, which is the topic of the message.
    pub routing_key: String,
    pub exchange: String,
    pub message_id: Option<String>,
    /// All headers, as text in the forms of [`loopabull_amqp::text`].
    pub headers: Vec<(String, String)>,
    pub content_type: Option<String>,
    pub content_encoding: Option<String>,
    pub priority: Option<u8>,
    /// AMQP property `timestamp`, in seconds since 1970. Fedora-messaging uses the header `sent-at` instead.
    pub timestamp: Option<u64>,
    /// AMQP property `user-id`: the name of the publisher's user, if the publisher set it. The broker
    /// verifies the name.
    pub user_id: Option<String>,
    /// Whether the message was delivered before, to us or to another consumer.
    pub redelivered: bool,
    acker: Acker,
}

/// The result of settling a delivery.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Settled {
    /// The acknowledgement or the requeue was sent to the broker.
    Sent,
    /// The channel of the delivery is closed, so the broker redelivers the message.
    ChannelGone,
}

/// The reason why a body cannot be read as text.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BusBodyError {
    #[error("the content encoding `{encoding}` is not supported")]
    UnknownEncoding { encoding: String },
    #[error("byte {at} of the body is not valid `{encoding}`")]
    Undecodable { encoding: String, at: usize },
}

impl BusDelivery {
    pub(crate) fn new(raw: RawDelivery) -> Self {
        let properties = &raw.properties;
        let text = |property: &Option<lapin::types::ShortString>| {
            property.as_ref().map(ToString::to_string).filter(|text| !text.is_empty())
        };
        let headers = properties.headers().as_ref();
        let headers = headers.into_iter().flat_map(|table| table.inner());
        Self {
            routing_key: raw.routing_key.to_string(),
            exchange: raw.exchange.to_string(),
            message_id: text(properties.message_id()),
            headers: headers.map(|(k, v)| (k.to_string(), loopabull_amqp::text(v))).collect(),
            content_type: text(properties.content_type()),
            content_encoding: text(properties.content_encoding()),
            priority: *properties.priority(),
            timestamp: *properties.timestamp(),
            user_id: text(properties.user_id()),
            redelivered: raw.redelivered,
            body: raw.data,
            acker: raw.acker,
        }
    }

    /// Returns the value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(header, _)| header == name);
        header.map(|(_, value)| value.as_str())
    }

    /// Returns the body as text, decoded from its content encoding. The default encoding is UTF-8.
    ///
    /// The Python consumer accepts every encoding for which Python has a codec, and exits if the encoding is
    /// unknown. We accept the encodings that are used for text on a bus: UTF-8, ASCII and Latin-1.
    pub fn text(&self) -> Result<Cow<'_, str>, BusBodyError> {
        let encoding = self.content_encoding.as_deref().unwrap_or("utf-8");
        let undecodable = |at| BusBodyError::Undecodable { encoding: encoding.to_owned(), at };
        match encoding.to_ascii_lowercase().replace(['_', ' '], "-").as_str() {
            "utf-8" | "utf8" | "u8" => str::from_utf8(&self.body)
                .map(Cow::Borrowed)
                .map_err(|error| undecodable(error.valid_up_to())),
            "ascii" | "us-ascii" | "646" => {
                match self.body.iter().position(|byte| !byte.is_ascii()) {
                    None => Ok(String::from_utf8_lossy(&self.body)),
                    Some(at) => Err(undecodable(at)),
                }
            }
            "latin-1" | "latin1" | "l1" | "iso-8859-1" | "iso8859-1" | "8859" | "cp819" => {
                Ok(self.body.iter().copied().map(char::from).collect::<String>().into())
            }
            _ => Err(BusBodyError::UnknownEncoding { encoding: encoding.to_owned() }),
        }
    }

    /// Acknowledges the delivery. Call this after the message is stored durably elsewhere.
    pub async fn ack(self) -> Settled {
        self.settle(self.acker.ack(BasicAckOptions::default())).await
    }

    /// Requeues the message at its position in the queue. The broker redelivers the message at once, so use
    /// this function only after [`Bus::stop`](crate::Bus::stop), and not for a retry.
    pub async fn requeue(self) -> Settled {
        let options = BasicNackOptions { multiple: false, requeue: true };
        self.settle(self.acker.nack(options)).await
    }

    /// Returns whether the delivery can still be settled.
    pub(crate) fn is_valid(&self) -> bool {
        self.acker.usable()
    }

    async fn settle(&self, send: impl Future<Output = lapin::Result<bool>>) -> Settled {
        // Lapin returns `false` if the channel is closed, and an error if the channel closes during the call.
        // We treat a timeout like a closed channel.
        match tokio::time::timeout(STEP_TIMEOUT, send).await {
            Ok(Ok(true)) => Settled::Sent,
            Ok(Ok(false) | Err(_)) | Err(_) => Settled::ChannelGone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(encoding: Option<&str>, body: &[u8], expected: Result<&str, &str>) {
        let raw = RawDelivery::mock(1, "e".into(), "a.b".into(), false, body.to_vec());
        let mut delivery = BusDelivery::new(raw);
        delivery.content_encoding = encoding.map(str::to_owned);
        let text = delivery.text().map_err(|error| error.to_string());
        assert_eq!(text.as_deref().map_err(String::as_str), expected);
    }

    #[test]
    fn a_body_is_decoded_from_its_content_encoding() {
        check(None, "{\"ä\":1}".as_bytes(), Ok("{\"ä\":1}"));
        check(Some("UTF-8"), "ä".as_bytes(), Ok("ä"));
        check(Some("utf_8"), "ä".as_bytes(), Ok("ä"));
        check(Some("us-ascii"), b"a", Ok("a"));
        check(Some("ISO-8859-1"), b"\xe4", Ok("ä"));
    }

    #[test]
    fn a_body_that_is_not_text_is_an_error() {
        check(None, b"a\xff", Err("byte 1 of the body is not valid `utf-8`"));
        check(Some("ascii"), "aä".as_bytes(), Err("byte 1 of the body is not valid `ascii`"));
        check(Some("xyz"), b"a", Err("the content encoding `xyz` is not supported"));
        check(Some("hex"), b"61", Err("the content encoding `hex` is not supported"));
    }
}
