//! A verifier: turns an envelope into a message, or refuses it.
//!
//! The one place where a message is made from the wire. It believes envelopes as they are, which an
//! operator has to ask for in so many words, or by their signature.

use std::fmt::Write;

use loopabull_model::{Body, Message, MessageId};
use sha2::{Digest, Sha256};

use crate::{Envelope, MAX_BODY_BYTES, Rejection, X509};

/// The most that the names and values of all headers may have together, in bytes.
pub(crate) const MAX_HEADER_BYTES: usize = 64 << 10;

/// Decides which envelopes are believed.
#[derive(Debug)]
pub enum Verifier {
    /// Signatures are not looked at: whoever can reach the socket can start a task.
    Off,
    /// Each envelope must be signed by a certificate that is trusted and may publish the topic.
    X509(Box<X509>),
}

impl Verifier {
    /// Turns an envelope into a message, or refuses it. `now` is the time of the checks, in seconds
    /// since 1970; `Off` does not look at it.
    ///
    /// The topic of the body must be the topic of the envelope: the bus filters by the second, a
    /// signature covers the first, and whoever may differ in them starts another task than was
    /// signed for.
    pub fn verify(&self, envelope: Envelope, now: i64) -> Result<Message, Rejection> {
        let topic = envelope.fields.topic.as_deref();
        if topic.is_some_and(|inner| inner != envelope.topic.as_str()) {
            return Err(Rejection::TopicMismatch { envelope: envelope.topic.to_string() });
        }
        let signer = match self {
            Self::Off => None,
            Self::X509(x509) => Some(x509.check(&envelope, now)?),
        };
        let Envelope { topic, text, fields, signed } = envelope;
        // A few bytes that are no ASCII are many in the form that was signed.
        let length = signed.canonical.len();
        if signer.is_some() && length > MAX_BODY_BYTES {
            return Err(Rejection::BodyTooLarge { length, limit: MAX_BODY_BYTES });
        }
        // Of a signed body a task gets the form that was signed, not another that reads like it.
        let (text, msg) = match signer {
            Some(_) => (signed.canonical, signed.msg),
            None => (text, fields.msg),
        };
        let Some(msg) = msg else {
            return Err(Rejection::BodyShape { reason: "missing field `msg`".to_owned() });
        };
        let id = match fields.msg_id {
            Some(id) => MessageId::try_from(id)?,
            None => id_of_content(&text),
        };
        let headers = fields.headers.into_iter().flatten();
        let headers = headers.map(|(name, value)| match value {
            serde_json::Value::String(text) => (name, text),
            other => (name, other.to_string()),
        });
        let headers: Vec<(String, String)> = headers.collect();
        let length = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if length > MAX_HEADER_BYTES {
            return Err(Rejection::HeadersTooLarge { length, limit: MAX_HEADER_BYTES });
        }
        let sent_at = fields.timestamp.and_then(|number| number.as_f64()).map(|s| s as i64);
        let body = Body::parse(&text[msg])?;
        Ok(Message::from_verified(id, topic, headers, sent_at, signer, body))
    }
}

/// Makes an id for a message that has none (old fedmsg, and other publishers): the same bytes
/// have the same id, so that a message that comes twice can be recognised.
fn id_of_content(text: &str) -> MessageId {
    let mut id = String::from("sha256:");
    for byte in Sha256::digest(text.as_bytes()) {
        write!(id, "{byte:02x}").expect("writing to a string does not fail");
    }
    MessageId::try_from(id).expect("71 hexadecimal characters are an id")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verify(body: &str) -> Result<Message, Rejection> {
        Verifier::Off.verify(Envelope::parse(&[b"a.b", body.as_bytes()], 2)?, 0)
    }

    fn check(body: &str, expected: &str) {
        assert_eq!(verify(body).unwrap_err().reason(), expected, "{body}");
    }

    #[test]
    fn the_message_is_what_the_body_says() {
        let message = verify(
            r#"{"topic":"a.b","msg_id":"2017-1","timestamp":1504642719.23539,"i":1,"username":null,
                "headers":{"sent-at":"x","n":1},"msg":{"n": 1e5}}"#,
        )
        .unwrap();
        assert_eq!(message.id.as_str(), "2017-1");
        assert_eq!(message.sent_at, Some(1_504_642_719));
        let headers = [("n".to_owned(), "1".to_owned()), ("sent-at".to_owned(), "x".to_owned())];
        assert_eq!(message.headers, headers);
        assert_eq!(message.body.as_str(), r#"{"n": 1e5}"#);
    }

    #[test]
    fn a_message_without_an_id_gets_one_of_its_content() {
        let first = verify(r#"{"msg":1}"#).unwrap();
        assert_eq!(first.id, verify(r#"{"msg":1}"#).unwrap().id);
        assert_ne!(first.id, verify(r#"{"msg":2}"#).unwrap().id);
    }

    #[test]
    fn headers_are_limited() {
        let body = |length| format!(r#"{{"msg":1,"headers":{{"h":["{}"]}}}}"#, "x".repeat(length));
        assert!(verify(&body(60_000)).is_ok());
        check(&body(70_000), "headers-too-large");
        let zeros = format!(r#"{{"msg":1,"headers":{{"h":[{}0]}}}}"#, "0,".repeat(1 << 20));
        check(&zeros, "headers-too-large");
    }

    #[test]
    fn another_topic_inside_is_refused() {
        check(r#"{"topic":"a.c","msg":{}}"#, "topic-mismatch");
    }

    #[test]
    fn a_body_without_payload_is_refused() {
        check(r#"{"topic":"a.b"}"#, "body-shape");
    }

    #[test]
    fn an_id_that_would_break_a_log_line_is_refused() {
        check(r#"{"msg":1,"msg_id":"a\nb"}"#, "bad-message-id");
        check(r#"{"msg":1,"msg_id":""}"#, "bad-message-id");
    }
}
