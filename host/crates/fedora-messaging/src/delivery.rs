//! One delivery of the bus: what stands in it, and how it is answered.

use std::borrow::Cow;

use lapin::Acker;
use lapin::options::{BasicAckOptions, BasicNackOptions};

use super::super::broker::PATIENCE;
use super::super::{Raw, table};

/// One delivery of the bus. If it is dropped without an answer it comes again once its channel is gone.
#[derive(Debug)]
pub struct BusDelivery {
    pub body: Vec<u8>,
    /// The topic.
    pub routing_key: String,
    pub exchange: String,
    pub message_id: Option<String>,
    /// All headers: text as it is, numbers in digits, what holds others as JSON.
    pub headers: Vec<(String, String)>,
    pub content_type: Option<String>,
    pub content_encoding: Option<String>,
    pub priority: Option<u8>,
    /// The property `timestamp`, in seconds since 1970. Fedora-messaging uses the header `sent-at`.
    pub timestamp: Option<u64>,
    /// The user who published it, if it says so: the broker takes no other name than the true one.
    pub user_id: Option<String>,
    /// It was delivered before, to us or to others.
    pub redelivered: bool,
    acker: Acker,
}

/// What became of an answer to a delivery.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Answered {
    /// The broker was told.
    Told,
    /// Its channel is gone: it comes again.
    ComesAgain,
}

/// Why a body is no text.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BusBodyError {
    #[error("the content encoding `{encoding}` is not known")]
    UnknownEncoding { encoding: String },
    #[error("byte {at} of the body is not `{encoding}`")]
    Undecodable { encoding: String, at: usize },
}

impl BusDelivery {
    pub(super) fn new(raw: Raw) -> Self {
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
            headers: headers.map(|(k, v)| (k.to_string(), table::any_text(v))).collect(),
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

    /// Returns the body as text, in the encoding that it names; without one it is UTF-8.
    ///
    /// Where the Python consumer takes whatever Python has a codec for, and ends at one that it has not,
    /// here are the three that text on a bus is ever in; anything else is an error to be told of.
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

    /// Tells the broker that it is in good hands: to be called once it is durable elsewhere.
    pub async fn ack(self) -> Answered {
        self.answer(self.acker.ack(BasicAckOptions::default())).await
    }

    /// Puts it back to its place. The broker delivers it at once to whoever consumes the queue: for
    /// stopping, after [`Bus::stop`](super::Bus::stop), and not for trying again.
    pub async fn give_back(self) -> Answered {
        let options = BasicNackOptions { multiple: false, requeue: true };
        self.answer(self.acker.nack(options)).await
    }

    /// Tells whether it can still be answered.
    pub(super) fn is_valid(&self) -> bool {
        self.acker.usable()
    }

    async fn answer(&self, answer: impl Future<Output = lapin::Result<bool>>) -> Answered {
        // Lapin says `false` of a channel that is gone, and an error if it goes meanwhile.
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(true)) => Answered::Told,
            Ok(Ok(false) | Err(_)) | Err(_) => Answered::ComesAgain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(encoding: Option<&str>, body: &[u8], expected: Result<&str, &str>) {
        let raw = Raw::mock(1, "e".into(), "a.b".into(), false, body.to_vec());
        let mut delivery = BusDelivery::new(raw);
        delivery.content_encoding = encoding.map(str::to_owned);
        let text = delivery.text().map_err(|error| error.to_string());
        assert_eq!(text.as_deref().map_err(String::as_str), expected);
    }

    #[test]
    fn a_body_is_text_in_the_encoding_that_it_names() {
        check(None, "{\"ä\":1}".as_bytes(), Ok("{\"ä\":1}"));
        check(Some("UTF-8"), "ä".as_bytes(), Ok("ä"));
        check(Some("utf_8"), "ä".as_bytes(), Ok("ä"));
        check(Some("us-ascii"), b"a", Ok("a"));
        check(Some("ISO-8859-1"), b"\xe4", Ok("ä"));
    }

    #[test]
    fn what_is_no_text_is_told_of() {
        check(None, b"a\xff", Err("byte 1 of the body is not `utf-8`"));
        check(Some("ascii"), "aä".as_bytes(), Err("byte 1 of the body is not `ascii`"));
        check(Some("xyz"), b"a", Err("the content encoding `xyz` is not known"));
        check(Some("hex"), b"61", Err("the content encoding `hex` is not known"));
    }
}
