//! Reads bodies that other programs published into a work queue.
//!
//! Three formats are accepted. The serializer of the old loopabull publishes an object with the keys `topic`
//! and `body` and no other key. Its `body` is a whole fedmsg body or only a payload. Other programs publish a
//! fedmsg body itself. fedora-messaging publishes only the payload, and the routing key is the topic.

use loopabull_model::Message;
use serde_json::Value;

use super::bus::from_bus;
use super::members::Members;
use super::message::Properties;
use super::recording;
use crate::Rejection;

/// Makes a message of a body from a work queue.
pub fn from_work_queue(body: &[u8], properties: Properties<'_>) -> Result<Message, Rejection> {
    let text = str::from_utf8(body).map_err(|_| Rejection::BodyNotUtf8)?;
    let members = Members::read(text)?;
    if is_fedmsg(&members) {
        return recording::from_members(text, &members);
    }
    if let Some(inner) = wrapped(&members) {
        let wrapped = Members::read(inner)?;
        if !is_fedmsg(&wrapped) {
            return recording::from_members(text, &members);
        }
        if wrapped.optional::<Value>("topic")? != members.optional("topic")? {
            return Err(Rejection::shape(
                "the topic of the wrapper differs from the topic of the wrapped body",
            ));
        }
        return recording::from_members(inner, &wrapped);
    }
    if properties.topic.is_none() {
        return Err(Rejection::shape("it names no topic, and its routing key is not a topic"));
    }
    from_bus(text, properties, None)
}

/// Returns true if the object has the keys of a fedmsg body.
fn is_fedmsg(members: &Members<'_>) -> bool {
    let has = |key| members.has(key);
    has("msg") && has("topic") && (has("i") || has("msg_id") || has("timestamp"))
}

/// Returns the text of the wrapped object if the members are those of a wrapper.
fn wrapped<'a>(members: &Members<'a>) -> Option<&'a str> {
    let inner = members.get("body").map(|body| body.get())?;
    (members.has_only(&["topic", "body"]) && inner.starts_with('{')).then_some(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, topic: Option<&str>, expected: &str) {
        let headers = [("h".to_owned(), "v".to_owned())];
        let properties = Properties { topic, message_id: Some("their-id"), headers: &headers };
        let message = from_work_queue(body.as_bytes(), properties).unwrap();
        assert_eq!(serde_json::to_string(&message).unwrap(), expected);
    }

    fn check_refused(body: &str, topic: Option<&str>, expected: &str) {
        let properties = Properties { topic, message_id: None, headers: &[] };
        let rejection = from_work_queue(body.as_bytes(), properties).unwrap_err();
        assert!(rejection.to_string().contains(expected), "{rejection}");
    }

    const FEDMSG: &str = r#"{"topic":"a.b","msg_id":"m","i":1,"timestamp":7,"msg":{"n":1.50}}"#;
    const MESSAGE: &str = r#"{"id":"m","topic":"a.b","sent_at":7,"body":{"n":1.50}}"#;

    #[test]
    fn a_whole_fedmsg_body_is_accepted_with_any_routing_key() {
        check(FEDMSG, None, MESSAGE);
        check(FEDMSG, Some("x.y"), MESSAGE);
    }

    #[test]
    fn the_old_serializer_wrapped_a_fedmsg_body() {
        check(&format!(r#"{{"topic":"a.b","body":{FEDMSG}}}"#), None, MESSAGE);
        check_refused(&format!(r#"{{"topic":"x","body":{FEDMSG}}}"#), None, "of the wrapper");
    }

    #[test]
    fn a_wrapper_of_another_object_is_the_archive_form() {
        let text = r#"{"topic":"a.b","body":{"n":1.50},"topic":"a.b"}"#;
        check_refused(text, Some("c.d"), "duplicate field `topic`");
        let text = r#"{"topic":"a.b","body":{"n":1.50}}"#;
        let properties = Properties { topic: None, message_id: None, headers: &[] };
        let message = from_work_queue(text.as_bytes(), properties).unwrap();
        assert_eq!((message.topic.as_str(), message.body.as_str()), ("a.b", r#"{"n":1.50}"#));
    }

    #[test]
    fn a_payload_has_its_topic_in_the_routing_key() {
        check(
            r#"{"n":1.50,"topic":"of its own"}"#,
            Some("c.d"),
            r#"{"id":"their-id","topic":"c.d","headers":[["h","v"]],"body":{"n":1.50,"topic":"of its own"}}"#,
        );
        check_refused(r#"{"n":1}"#, None, "names no topic");
        check_refused(r#"{"n":1}"#, Some("a..b"), "empty word");
    }

    #[test]
    fn a_text_that_is_not_an_object_is_refused() {
        check_refused("[]", Some("a.b"), "invalid type");
        check_refused("{", Some("a.b"), "EOF");
        check_refused(&"[".repeat(1000), Some("a.b"), "127");
        let properties = Properties { topic: None, message_id: None, headers: &[] };
        assert_eq!(from_work_queue(b"\xff", properties).unwrap_err().reason(), "body-not-utf8");
    }
}
