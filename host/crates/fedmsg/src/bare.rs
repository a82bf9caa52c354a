//! A bare body with its properties: the form of fedora-messaging, whose topic is the routing key.
//!
//! What its Python consumer is lenient about is taken: a missing id, schema or severity, and any content
//! type. What that consumer would lose is refused with a reason, so that the host can keep it.

use std::collections::HashMap;

use loopabull_model::{Body, Topic};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::{Envelope, Properties, Rejection};

/// Takes a bare body apart, a JSON object, which a verifier then accepts or refuses like any other.
/// `sent_at` is in seconds since 1970.
///
/// Headers that begin with `x-` are left out: they are the broker's, `x-death` and `x-delivery-count`, and
/// others at each delivery of the same message.
pub fn envelope_of_bare(
    body: &str,
    properties: Properties<'_>,
    sent_at: Option<i64>,
) -> Result<Envelope, Rejection> {
    let shape = |reason: String| Rejection::BodyShape { reason };
    let topic = properties.topic.ok_or_else(|| shape("it came by no topic".to_owned()))?;
    let topic = Topic::try_from(topic)?;
    Body::parse(body)?;
    let object: Result<HashMap<String, &RawValue>, _> = serde_json::from_str(body);
    object.map_err(|error| shape(error.to_string()))?;
    let headers: Map<String, Value> = properties
        .headers
        .iter()
        .filter(|(name, _)| !name.starts_with("x-"))
        .map(|(name, value)| (name.clone(), Value::String(value.clone())))
        .collect();
    // Written by hand around the text, which so stays as it came.
    let part = |value: Value| value.to_string();
    let text = format!(
        r#"{{"topic":{},"msg_id":{},"headers":{},"timestamp":{},"msg":{body}}}"#,
        part(topic.as_str().into()),
        part(properties.message_id.into()),
        part(headers.into()),
        part(sent_at.into()),
    );
    Envelope::from_parts(topic, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verifier;

    fn envelope(body: &str, topic: &str, id: Option<&str>) -> Result<Envelope, Rejection> {
        let headers = [("sent-at".to_owned(), "x".to_owned())];
        let properties = Properties { topic: Some(topic), message_id: id, headers: &headers };
        envelope_of_bare(body, properties, Some(7))
    }

    fn check_refused(body: &str, topic: &str, expected: &str) {
        assert_eq!(envelope(body, topic, None).unwrap_err().reason(), expected, "{body}");
    }

    #[test]
    fn what_a_broker_adds_makes_no_other_message() {
        let id = |count: &str| {
            let headers = [("x-delivery-count", count), ("sent-at", "y")];
            let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let properties = Properties { topic: Some("a.b"), message_id: None, headers: &headers };
            let envelope = envelope_of_bare("{}", properties, None).unwrap();
            let message = Verifier::Off.verify(envelope, 0).unwrap();
            assert_eq!(message.headers, [("sent-at".to_owned(), "y".to_owned())]);
            message.id
        };
        assert_eq!(id("1"), id("2"));
    }

    #[test]
    fn a_body_is_a_message_of_its_routing_key_and_stays_as_it_came() {
        // What looks like another form is the payload all the same: the broker has checked the key.
        let body = r#"{"topic": "x.y", "msg": {"n":1.50}, "msg_id": "other", "i": 1}"#;
        let message = Verifier::Off.verify(envelope(body, "a.b", Some("m-1")).unwrap(), 0).unwrap();
        assert_eq!((message.id.as_str(), message.topic.as_str()), ("m-1", "a.b"));
        assert_eq!((message.sent_at, message.body.as_str()), (Some(7), body));
        assert_eq!(message.headers, [("sent-at".to_owned(), "x".to_owned())]);
    }

    #[test]
    fn a_message_without_an_id_gets_one_of_its_content() {
        let message = Verifier::Off.verify(envelope("{}", "a.b", None).unwrap(), 0).unwrap();
        assert!(message.id.as_str().starts_with("sha256:"));
    }

    #[test]
    fn what_is_no_object_or_has_no_topic_is_refused() {
        check_refused("[]", "a.b", "body-shape");
        check_refused("{", "a.b", "body-not-json");
        check_refused("{}", "a..b", "bad-topic");
        check_refused("{} {}", "a.b", "body-not-json");
    }
}
