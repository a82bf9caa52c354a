//! Bodies that others put into a work queue, in the forms that were used with it.
//!
//! The serializer of the old loopabull wraps a whole fedmsg body: `{"topic", "body"}` and nothing
//! else. Others put the fedmsg body itself there, and fedora-messaging the bare payload, whose topic
//! is the routing key.

use loopabull_model::Body;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::recording::envelope_of_recording;
use crate::{Envelope, Rejection, envelope_of_bare};

/// What stands beside a body in AMQP.
#[derive(Clone, Copy, Debug)]
pub struct Properties<'a> {
    /// The routing key, if it may be a topic: not the name of a queue.
    pub topic: Option<&'a str>,
    pub message_id: Option<&'a str>,
    pub headers: &'a [(String, String)],
}

/// Takes a body of others apart, which a verifier then accepts or refuses like any other.
pub fn envelope_of_foreign(body: &[u8], properties: Properties<'_>) -> Result<Envelope, Rejection> {
    let text = str::from_utf8(body).map_err(|_| Rejection::BodyNotUtf8)?;
    Body::parse(text)?;
    let shape = |reason: String| Rejection::BodyShape { reason };
    let keys: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| shape(error.to_string()))?;
    if is_fedmsg(&keys) {
        return envelope_of_recording(body);
    }
    if let (2, Some(topic), Some(Value::Object(inner))) =
        (keys.len(), keys.get("topic"), keys.get("body"))
    {
        if !is_fedmsg(inner) {
            return envelope_of_recording(body);
        }
        if inner.get("topic") != Some(topic) {
            return Err(shape("the topic of the wrapper is not that of the body".to_owned()));
        }
        // The text as it came: a number keeps its digits.
        let wrapper: std::collections::HashMap<String, &RawValue> =
            serde_json::from_str(text).map_err(|error| shape(error.to_string()))?;
        return envelope_of_recording(wrapper["body"].get().as_bytes());
    }
    if properties.topic.is_none() {
        return Err(shape("it names no topic, and did not come by one".to_owned()));
    }
    envelope_of_bare(text, properties, None)
}

/// Tells whether these are the keys of a fedmsg body.
fn is_fedmsg(keys: &Map<String, Value>) -> bool {
    let has = |key| keys.contains_key(key);
    has("msg") && has("topic") && (has("i") || has("msg_id") || has("timestamp"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verifier;

    fn check(body: &str, topic: Option<&str>, expected: &str) {
        let headers = [("h".to_owned(), "v".to_owned())];
        let properties = Properties { topic, message_id: Some("their-id"), headers: &headers };
        let envelope = envelope_of_foreign(body.as_bytes(), properties).unwrap();
        let message = Verifier::Off.verify(envelope, 0).unwrap();
        assert_eq!(serde_json::to_string(&message).unwrap(), expected);
    }

    fn check_refused(body: &str, topic: Option<&str>, expected: &str) {
        let properties = Properties { topic, message_id: None, headers: &[] };
        let rejection = envelope_of_foreign(body.as_bytes(), properties).unwrap_err();
        assert!(rejection.to_string().contains(expected), "{rejection}");
    }

    const FEDMSG: &str = r#"{"topic":"a.b","msg_id":"m","i":1,"timestamp":7,"msg":{"n":1.50}}"#;
    const MESSAGE: &str = r#"{"id":"m","topic":"a.b","sent_at":7,"body":{"n":1.50}}"#;

    #[test]
    fn a_whole_fedmsg_body_is_taken_whatever_the_routing_key() {
        check(FEDMSG, None, MESSAGE);
        check(FEDMSG, Some("x.y"), MESSAGE);
    }

    #[test]
    fn the_old_serializer_wrapped_a_fedmsg_body() {
        check(&format!(r#"{{"topic":"a.b","body":{FEDMSG}}}"#), None, MESSAGE);
        check_refused(&format!(r#"{{"topic":"x","body":{FEDMSG}}}"#), None, "of the wrapper");
    }

    #[test]
    fn a_bare_body_has_its_topic_in_the_routing_key() {
        check(
            r#"{"n":1.50,"topic":"of its own"}"#,
            Some("c.d"),
            r#"{"id":"their-id","topic":"c.d","headers":[["h","v"]],"body":{"n":1.50,"topic":"of its own"}}"#,
        );
        check_refused(r#"{"n":1}"#, None, "names no topic");
        check_refused(r#"{"n":1}"#, Some("a..b"), "empty word");
    }

    #[test]
    fn what_is_no_object_is_refused() {
        check_refused("[]", Some("a.b"), "invalid type");
        check_refused("{", Some("a.b"), "EOF");
        check_refused(&"[".repeat(1000), Some("a.b"), "127");
    }
}
