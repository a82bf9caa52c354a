//! Messages in the format of fedora-messaging: the body is the payload, and the routing key is the topic.
//!
//! This module accepts as much as the consumer of the Python library: the id, the schema and the severity may
//! be missing, and any content type is allowed. The Python consumer drops a message that it cannot read. This
//! module refuses that message with a reason, so that the host can quarantine the message.

use std::collections::BTreeMap;

use loopabull_model::{Body, BodyError, MAX_DEPTH, Message, MessageId, Topic};

use super::integers::refuse_long_integers;
use super::message::{Parts, Properties, check_size};
use crate::Rejection;
use crate::content_id::content_id;

/// The maximum nesting depth of a payload. This is one level less than the maximum for a whole fedmsg body,
/// so that both buses deliver the same payloads.
const MAX_PAYLOAD_DEPTH: usize = MAX_DEPTH - 1;

/// Makes a message of a payload, which must be a JSON object. `sent_at` is in seconds since 1970.
///
/// Headers that begin with `x-` are omitted. The broker sets these headers, for example `x-death` and
/// `x-delivery-count`. They differ between deliveries of the same message.
pub fn from_bus(
    body: &str,
    properties: Properties<'_>,
    sent_at: Option<i64>,
) -> Result<Message, Rejection> {
    let topic = properties.topic.ok_or_else(|| Rejection::shape("it came without a topic"))?;
    let topic = Topic::try_from(topic)?;
    let payload = Body::parse(body)?;
    if !payload.as_str().starts_with('{') {
        return Err(Rejection::shape("it is not an object"));
    }
    check_size(body)?;
    if payload.is_deeper_than(MAX_PAYLOAD_DEPTH) {
        return Err(BodyError::TooDeep.into());
    }
    refuse_long_integers(body)?;
    // If two headers have the same name, the last one is used.
    let headers = properties.headers.iter().filter(|(name, _)| !name.starts_with("x-"));
    let headers: BTreeMap<&String, &String> = headers.map(|(name, value)| (name, value)).collect();
    let parts = Parts {
        id: properties.message_id,
        topic,
        headers: headers.iter().map(|(&name, &value)| (name.clone(), value.clone())).collect(),
        sent_at,
        body: payload,
    };
    parts.into_message(|parts| id_of_payload(&parts.topic, &headers, sent_at, body))
}

/// Returns the id of a message that has none. The hashed text must not change in later versions, because a
/// message must keep its id when the host is upgraded.
fn id_of_payload(
    topic: &Topic,
    headers: &BTreeMap<&String, &String>,
    sent_at: Option<i64>,
    body: &str,
) -> MessageId {
    let json = |value: serde_json::Result<String>| {
        value.expect("strings and numbers can be written as JSON")
    };
    let topic = json(serde_json::to_string(topic));
    let headers = json(serde_json::to_string(headers));
    let sent_at = json(serde_json::to_string(&sent_at));
    let before = [r#"{"topic":"#, &topic, r#","msg_id":null,"headers":"#, &headers];
    content_id(&[&before.concat(), r#","timestamp":"#, &sent_at, r#","msg":"#, body, "}"])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{Envelope, Verifier};

    fn message(body: &str, topic: &str, id: Option<&str>) -> Result<Message, Rejection> {
        let headers = [("sent-at".to_owned(), "x".to_owned())];
        let properties = Properties { topic: Some(topic), message_id: id, headers: &headers };
        from_bus(body, properties, Some(7))
    }

    fn check_refused(body: &str, topic: &str, expected: &str) {
        assert_eq!(message(body, topic, None).unwrap_err().reason(), expected, "{body:.80}");
    }

    #[test]
    fn headers_of_the_broker_do_not_change_a_message() {
        let id = |count: &str| {
            let headers = [("x-delivery-count", count), ("sent-at", "y")];
            let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let properties = Properties { topic: Some("a.b"), message_id: None, headers: &headers };
            let message = from_bus("{}", properties, None).unwrap();
            assert_eq!(message.headers, [("sent-at".to_owned(), "y".to_owned())]);
            message.id
        };
        assert_eq!(id("1"), id("2"));
    }

    #[test]
    fn a_payload_is_a_message_of_its_routing_key_and_stays_as_it_came() {
        // A payload that looks like a fedmsg body is treated as a payload, because the broker has checked
        // only the routing key.
        let body = r#"{"topic": "x.y", "msg": {"n":1.50}, "msg_id": "other", "i": 1}"#;
        let message = message(&format!(" {body}\n"), "a.b", Some("m-1")).unwrap();
        assert_eq!((message.id.as_str(), message.topic.as_str()), ("m-1", "a.b"));
        assert_eq!((message.sent_at, message.body.as_str()), (Some(7), body));
        assert_eq!(message.headers, [("sent-at".to_owned(), "x".to_owned())]);
        assert_eq!(message.signer, None);
    }

    #[test]
    fn a_message_without_an_id_gets_the_id_of_its_content() {
        let id = message("{}", "a.b", None).unwrap().id;
        let expected = "sha256:e845d47558dcb7ff105db0fafcb744cb3cd76279f28580bf7059226afa07e848";
        assert_eq!(id.as_str(), expected);
    }

    #[test]
    fn a_payload_that_is_not_an_object_or_has_no_topic_is_refused() {
        check_refused("[]", "a.b", "body-shape");
        check_refused("{", "a.b", "body-not-json");
        check_refused("{}", "a..b", "bad-topic");
        check_refused("{} {}", "a.b", "body-not-json");
        let properties = Properties { topic: None, message_id: None, headers: &[] };
        assert_eq!(from_bus("{}", properties, None).unwrap_err().reason(), "body-shape");
    }

    #[test]
    fn a_payload_that_no_task_could_read_is_refused() {
        let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        assert!(message(&nested(126), "a.b", None).is_ok());
        check_refused(&nested(127), "a.b", "body-too-deep");
        check_refused(&nested(128), "a.b", "body-too-deep");
        check_refused(r#"{"a":"\ud800"}"#, "a.b", "lone-surrogate");
        check_refused(r#"{"$serde_json::private::Number":"1"}"#, "a.b", "reserved-key");
        check_refused(&format!("{{\"a\":{}}}", "1".repeat(4301)), "a.b", "body-not-json");
        check_refused(&format!("{{\"a\":\"{}\"}}", "a".repeat(8 << 20)), "a.b", "body-too-large");
    }

    #[test]
    fn ids_and_headers_are_limited() {
        let rejection = message("{}", "a.b", Some("a b")).unwrap_err();
        assert_eq!(rejection.reason(), "bad-message-id");
        let headers = [("h".to_owned(), "x".repeat(64 << 10))];
        let properties = Properties { topic: Some("a.b"), message_id: None, headers: &headers };
        let rejection = from_bus("{}", properties, None).unwrap_err();
        assert_eq!(rejection.reason(), "headers-too-large");
    }

    /// Makes the message of a fedmsg envelope around the payload, with a verifier that checks no signature.
    fn through_envelope(
        body: &str,
        id: Option<&str>,
        headers: &[(String, String)],
        sent_at: Option<i64>,
    ) -> Result<Message, Rejection> {
        Body::parse(body)?;
        serde_json::from_str::<BTreeMap<String, serde_json::Value>>(body)
            .map_err(|error| Rejection::shape(&error.to_string()))?;
        let headers: BTreeMap<_, _> = headers.iter().cloned().collect();
        let (id, headers, sent_at) = (json!(id), json!(headers), json!(sent_at));
        let text = format!(
            r#"{{"topic":"a.b","msg_id":{id},"headers":{headers},"timestamp":{sent_at},"msg":{body}}}"#
        );
        Verifier::Off.verify(Envelope::parse(&[b"a.b", text.as_bytes()], 2)?, 0)
    }

    proptest! {
        #[test]
        fn a_payload_is_the_message_of_an_unchecked_envelope_around_it(
            body in crate::trusted::random::json_text(),
            id in prop::option::of("[a-z ]{0,3}|\\PC{0,2}"),
            headers in prop::collection::vec(("[a-c]{0,2}", "\\PC{0,4}"), 0..4),
            sent_at in prop::option::of(any::<i64>().prop_map(|time| time >> 12)),
        ) {
            let id = id.as_deref();
            let properties = Properties { topic: Some("a.b"), message_id: id, headers: &headers };
            let found = from_bus(&body, properties, sent_at).map_err(|error| error.reason());
            let expected = through_envelope(&body, id, &headers, sent_at);
            prop_assert_eq!(found, expected.map_err(|error| error.reason()));
        }
    }
}
