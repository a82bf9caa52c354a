//! Reads a recording, which is one message in a file or in the archive, without checking a signature.
//!
//! Two formats are read: a whole fedmsg body (`{"topic", "msg", …}`), and the archive format of
//! fedora-messaging and datagrepper (`{"id", "topic", "headers", "body", …}`).

use std::borrow::Cow;
use std::collections::BTreeMap;

use loopabull_model::{Body, BodyError, Message, MessageId, Topic};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Number, Value};

use super::integers::refuse_long_integers;
use super::members::Members;
use super::message::{Parts, check_size};
use crate::content_id::content_id;
use crate::{Rejection, headers, without_datagrepper};

/// Makes a message of a recording. If the recording has a signature, it is not checked.
pub fn from_recording(bytes: &[u8]) -> Result<Message, Rejection> {
    let text = str::from_utf8(bytes).map_err(|_| Rejection::BodyNotUtf8)?;
    from_members(text, &Members::read(text)?)
}

/// Makes a message of a recording whose members are already read.
pub(super) fn from_members(text: &str, members: &Members<'_>) -> Result<Message, Rejection> {
    members.refuse_repeated(&["topic", "id", "headers", "msg", "body"])?;
    let topic: String = members.required("topic")?;
    let id: Option<String> = members.optional("id")?;
    let headers: Option<BTreeMap<String, Value>> = members.optional("headers")?;
    let topic = Topic::try_from(topic)?;
    match (members.get("msg"), members.get("body")) {
        (Some(msg), None) => from_fedmsg_form(text, members, topic, headers, msg),
        (None, Some(body)) => from_archive_form(members, topic, id.as_deref(), headers, body),
        _ => Err(Rejection::shape("it needs either `msg` (fedmsg) or `body` (fedora-messaging)")),
    }
}

fn from_fedmsg_form(
    text: &str,
    members: &Members<'_>,
    topic: Topic,
    headers: Option<BTreeMap<String, Value>>,
    msg: &RawValue,
) -> Result<Message, Rejection> {
    let is_stored = members.has("source_name") && members.has("source_version");
    let text = if is_stored {
        without_datagrepper(text)
            .map_err(|error| BodyError::NotJson { reason: error.to_string() })?
    } else {
        Cow::Borrowed(text)
    };
    check_size(&text)?;
    refuse_long_integers(&text)?;
    if let Some(written) = members.get("headers") {
        headers::check_written(written.get())?;
    }
    // `without_datagrepper` has already removed repeated keys.
    if !is_stored {
        members.refuse_repeated(&["msg_id", "timestamp", "crypto", "signature", "certificate"])?;
    }
    let id: Option<String> = members.optional("msg_id")?;
    let timestamp: Option<Number> = members.optional("timestamp")?;
    let parts = Parts {
        id: id.as_deref(),
        topic,
        headers: headers::from_tree(headers),
        sent_at: timestamp.and_then(|number| number.as_f64()).map(|seconds| seconds as i64),
        body: Body::from_raw(msg.to_owned())?,
    };
    parts.into_message(|_| content_id(&[&text]))
}

fn from_archive_form(
    members: &Members<'_>,
    topic: Topic,
    id: Option<&str>,
    headers: Option<BTreeMap<String, Value>>,
    body: &RawValue,
) -> Result<Message, Rejection> {
    // Archives format the same message differently. The body is normalized, so that the message gets the same
    // id from each archive.
    let shape = |error: serde_json::Error| Rejection::shape(&error.to_string());
    let tree: Value = serde_json::from_str(body.get()).map_err(shape)?;
    let body = Body::from_raw(to_raw_value(&tree).map_err(shape)?)?;
    let written_headers = serde_json::to_string(&headers).map_err(shape)?;
    check_size(body.as_str())?;
    refuse_long_integers(body.as_str())?;
    if let Some(written) = members.get("headers") {
        refuse_long_integers(written.get())?;
    }
    headers::check_written(&written_headers)?;
    let headers = headers::from_tree(headers);
    let parts = Parts { id, topic, headers, sent_at: None, body };
    parts.into_message(|parts| id_of_archived(&parts.topic, &written_headers, &parts.body))
}

/// Returns the id of an archived message that has none. The hashed text must not change in later versions,
/// because a message must keep its id when the host is upgraded.
fn id_of_archived(topic: &Topic, headers: &str, body: &Body) -> MessageId {
    let topic = serde_json::to_string(topic).expect("a topic can be written as JSON");
    let before = [r#"{"headers":"#, headers, r#","msg":"#].concat();
    content_id(&[&before, body.as_str(), r#","msg_id":null,"topic":"#, &topic, "}"])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Verifier, envelope_of_recording};

    fn check(text: &str, expected: &str) {
        let message = from_recording(text.as_bytes()).unwrap();
        assert_eq!(serde_json::to_string(&message).unwrap(), expected);
    }

    #[test]
    fn a_fedmsg_body_keeps_its_payload_as_it_is_written() {
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
    fn a_recording_without_an_id_gets_the_id_of_its_content() {
        let id = |text: &str| from_recording(text.as_bytes()).unwrap().id.to_string();
        let fedmsg = r#"{"topic":"a.b","msg":1}"#;
        assert_eq!(id(fedmsg), content_id(&[fedmsg]).to_string());
        // Archives differ in the order of keys and in whitespace.
        let archived = r#"{"topic":"a.b","body":{"b":1,"a":1.50}}"#;
        assert_eq!(id(archived), id(r#"{"body": {"a":1.50, "b":1}, "topic":"a.b", "queue":"q"}"#));
        assert_eq!(
            id(archived),
            "sha256:d2d00162c29035de45435e7b83ee8ed18fb0835ef940a009a5c5b413d9865973"
        );
        // The keys that datagrepper added are not hashed.
        let stored = r#"{"msg":1,"source_name":"d","source_version":"1","topic":"a.b"}"#;
        assert_eq!(id(stored), content_id(&[r#"{"msg":1,"topic":"a.b"}"#]).to_string());
    }

    fn check_refused(text: &str, expected: &str) {
        let rejection = from_recording(text.as_bytes()).unwrap_err();
        assert_eq!(rejection.reason(), expected, "{text:.80}");
    }

    #[test]
    fn a_text_that_is_not_a_recording_is_refused() {
        for text in [
            r#"{"topic":"a.b"}"#,
            r#"{"msg":1}"#,
            "[]",
            r#"{"topic":"a.b","msg":1,"body":1}"#,
            r#"{"topic":"a.b","msg":1,"id":5}"#,
            r#"{"topic":"a.b","msg":1,"msg_id":5}"#,
            r#"{"topic":"a.b","msg":1,"timestamp":"5"}"#,
            r#"{"topic":"a.b","msg":1,"headers":[]}"#,
            r#"{"topic":"a.b","msg":1,"msg":2}"#,
            r#"{"topic":"a.b","msg":1,"msg_id":"1","msg_id":"2"}"#,
            r#"{"topic":"a.b","msg":1,"signature":"1","signature":"2"}"#,
        ] {
            check_refused(text, "body-shape");
        }
        check_refused("", "body-not-json");
        check_refused(r#"{"topic":"/","msg":1}"#, "bad-topic");
        check_refused(r#"{"topic":"a.b","msg":1,"msg_id":"a b"}"#, "bad-message-id");
        check_refused(r#"{"topic":"a.b","body":1,"id":""}"#, "bad-message-id");
        check_refused(r#"{"topic":"a.b","msg":1,"more":"\ud800"}"#, "lone-surrogate");
        let digits = "1".repeat(4301);
        check_refused(&format!(r#"{{"topic":"a.b","msg":1,"i":{digits}}}"#), "body-not-json");
        check_refused(&format!(r#"{{"topic":"a.b","body":[{digits}]}}"#), "body-not-json");
        assert_eq!(from_recording(b"\xff").unwrap_err().reason(), "body-not-utf8");
    }

    #[test]
    fn headers_are_limited() {
        let with = |headers: &str| format!(r#"{{"topic":"a.b","body":1,"headers":{headers}}}"#);
        check_refused(&with(&format!(r#"{{"h":"{}"}}"#, "x".repeat(70_000))), "headers-too-large");
        let zeros = format!(r#"{{"h":[{}0]}}"#, "0,".repeat(1 << 20));
        check_refused(&with(&zeros), "headers-too-large");
        check_refused(&with(&zeros).replace("body", "msg"), "headers-too-large");
    }

    proptest! {
        #[test]
        fn a_recording_is_the_message_of_an_unchecked_envelope(
            text in crate::trusted::random::recording(),
        ) {
            // `envelope_of_recording` also accepts an array instead of an object, because serde does.
            // `from_recording` does not.
            prop_assume!(!text.trim_start().starts_with('['));
            let found = from_recording(text.as_bytes());
            let expected = envelope_of_recording(text.as_bytes())
                .and_then(|envelope| Verifier::Off.verify(envelope, 0));
            prop_assert_eq!(
                found.map_err(|rejection| rejection.reason()),
                expected.map_err(|rejection| rejection.reason())
            );
        }
    }
}
