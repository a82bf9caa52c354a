//! Reads a recording, which is a file with one message, as an envelope whose signature can be checked.
//!
//! Two formats are accepted: a whole fedmsg body (`{"topic", "msg", …}`), and the archive format of
//! fedora-messaging and datagrepper (`{"id", "topic", "headers", "body", …}`), which has no signature.
//! [`trusted::from_recording`](crate::trusted::from_recording) reads the same formats without checking a
//! signature.

use loopabull_model::{Body, BodyError, Topic};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::{Envelope, Rejection, without_datagrepper};

/// Parses a recording into an envelope. A verifier then accepts or refuses the envelope.
pub fn envelope_of_recording(bytes: &[u8]) -> Result<Envelope, Rejection> {
    let text = str::from_utf8(bytes).map_err(|_| Rejection::BodyNotUtf8)?;
    Body::parse(text)?;
    let shape = |reason: String| Rejection::BodyShape { reason };
    let recording: Recording =
        serde_json::from_str(text).map_err(|error| shape(error.to_string()))?;
    let topic = Topic::try_from(recording.topic)?;
    match (recording.msg, recording.body) {
        (Some(_), None) => {
            let text = without_datagrepper(text)
                .map_err(|error| BodyError::NotJson { reason: error.to_string() })?;
            Envelope::from_parts(topic, text.as_bytes())
        }
        (None, Some(body)) => {
            let body = serde_json::json!({
                "topic": topic.as_str(),
                "msg_id": recording.id,
                "headers": recording.headers,
                "msg": body,
            });
            Envelope::from_parts(topic, body.to_string().as_bytes())
        }
        _ => Err(shape("it needs either `msg` (fedmsg) or `body` (fedora-messaging)".to_owned())),
    }
}

#[derive(Deserialize)]
struct Recording {
    topic: String,
    id: Option<String>,
    headers: Option<Map<String, Value>>,
    #[serde(default, deserialize_with = "present")]
    msg: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "present")]
    body: Option<Box<RawValue>>,
}

/// Reads a value that may be `null`. Serde's default would read `null` as a missing value.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verifier;

    fn check(text: &str, expected: &str) {
        let message =
            Verifier::Off.verify(envelope_of_recording(text.as_bytes()).unwrap(), 0).unwrap();
        assert_eq!(serde_json::to_string(&message).unwrap(), expected);
    }

    #[test]
    fn a_fedmsg_body_stays_as_it_is() {
        check(
            r#"{"topic":"a.b","msg_id":"1","msg":{"n":1.50},"timestamp":3}"#,
            r#"{"id":"1","topic":"a.b","sent_at":3,"body":{"n":1.50}}"#,
        );
    }

    #[test]
    fn the_archive_form_keeps_id_headers_and_body() {
        check(
            r#"{"body":{"n":123456789012345678901},"headers":{"sent-at":"x"},"id":"7","queue":null,"topic":"a.b"}"#,
            r#"{"id":"7","topic":"a.b","headers":[["sent-at","x"]],"body":{"n":123456789012345678901}}"#,
        );
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [r#"{"topic":"a.b"}"#, r#"{"msg":1}"#, "[]", "", r#"{"topic":"/","msg":1}"#] {
            assert!(envelope_of_recording(text.as_bytes()).is_err(), "{text}");
        }
    }
}
