//! The verifier: turns a fedmsg envelope into a message, or refuses it.
//!
//! This is the only place where an envelope becomes a message. The verifier checks the signature, unless the
//! operator has switched this check off. The envelopes come from [`Envelope::parse`]. The host routes the
//! messages to tasks.

use loopabull_model::{Body, Message, MessageId};

use crate::content_id::content_id;
use crate::{Envelope, MAX_BODY_BYTES, Rejection, X509, headers};

/// Decides which envelopes are accepted.
#[derive(Debug)]
pub enum Verifier {
    /// Do not check signatures. Everybody who can publish to the source can start a task.
    Off,
    /// Require a signature by a trusted certificate whose signer may publish the topic.
    X509(Box<X509>),
}

impl Verifier {
    /// Turns an envelope into a message, or refuses it. `now` is the current time in seconds since 1970;
    /// `Off` ignores it.
    ///
    /// The topic of the body must be the topic of the envelope. The bus filters by the topic of the envelope,
    /// and the signature covers the topic of the body. If the two topics differed, a message could start a
    /// task for a topic that its signer did not sign.
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
        // Canonical JSON escapes characters outside ASCII, so it may be longer than the text that was
        // received.
        let length = signed.canonical.len();
        if signer.is_some() && length > MAX_BODY_BYTES {
            return Err(Rejection::BodyTooLarge { length, limit: MAX_BODY_BYTES });
        }
        // A task gets the body in canonical form, because the signature covers exactly these bytes.
        let (text, msg) = match signer {
            Some(_) => (signed.canonical, signed.msg),
            None => (text, fields.msg),
        };
        let Some(msg) = msg else {
            return Err(Rejection::BodyShape { reason: "missing field `msg`".to_owned() });
        };
        let id = match fields.msg_id {
            Some(id) => MessageId::try_from(id)?,
            None => content_id(&[&text]),
        };
        let headers = headers::from_tree(fields.headers);
        headers::check(&headers)?;
        let sent_at = fields.timestamp.and_then(|number| number.as_f64()).map(|s| s as i64);
        let body = Body::parse(&text[msg])?;
        Ok(Message::from_verified(id, topic, headers, sent_at, signer, body))
    }
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
    fn the_message_has_the_values_of_the_body() {
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
    fn a_message_without_an_id_gets_the_id_of_its_content() {
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
    fn a_body_with_another_topic_is_refused() {
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
