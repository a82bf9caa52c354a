//! The message a task works on.
//!
//! Owns the reading of the body into the type the task asks for. Comes after the border,
//! in `bindings` or `test`, and before the task's own code.

use serde::de::DeserializeOwned;

use crate::{Failure, Result};

/// A message from the bus that passed verification.
///
/// `T` is the shape of the body that the task needs, any type that serde reads; fields of
/// the body that it does not name are skipped. Without a shape of its own a task takes
/// `Message`, and the body is a [`serde_json::Value`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<T = serde_json::Value> {
    /// The publisher's id, the same over redeliveries: the key for idempotence.
    pub id: String,
    /// The dotted topic, for example `org.fedoraproject.prod.buildsys.build.state.change`.
    pub topic: String,
    /// In the order of the wire, duplicates kept.
    pub headers: Vec<(String, String)>,
    /// The body, read from its JSON.
    pub body: T,
}

impl<T: DeserializeOwned> Message<T> {
    /// Reads the body of a message, which is JSON text.
    pub(crate) fn from_parts(
        id: String,
        topic: String,
        headers: Vec<(String, String)>,
        body: &[u8],
    ) -> Result<Self> {
        let body = serde_json::from_slice(body)
            .map_err(|error| Failure::Reject(format!("body does not fit the task: {error}")))?;
        Ok(Message { id, topic, headers, body })
    }
}

#[cfg(test)]
mod tests {
    use crate::{Failure, Message, Result, test};

    #[derive(serde::Deserialize)]
    struct Build {
        name: String,
    }

    fn check(body: &[u8], expected: Result) {
        let name_the_build = |message: Message<Build>| match message.body.name.as_str() {
            "bull" => Ok(()),
            other => panic!("read `{other}`"),
        };
        let run = test::message("org.example.build", body).run(name_the_build);
        assert_eq!(run.result, expected);
    }

    fn rejected(reason: &str) -> Result {
        Err(Failure::Reject(reason.to_owned()))
    }

    #[test]
    fn body_is_read_and_what_the_task_does_not_name_is_skipped() {
        check(br#"{"name": "bull", "new": [1, {}]}"#, Ok(()));
    }

    #[test]
    fn body_without_a_field_is_rejected() {
        check(
            br#"{"new": 1}"#,
            rejected("body does not fit the task: missing field `name` at line 1 column 10"),
        );
    }

    #[test]
    fn body_that_is_not_json_is_rejected() {
        check(
            b"",
            rejected("body does not fit the task: EOF while parsing a value at line 1 column 0"),
        );
    }

    #[test]
    fn body_that_is_not_utf8_is_rejected() {
        check(
            b"{\"name\": \"\xff\"}",
            rejected("body does not fit the task: invalid unicode code point at line 1 column 11"),
        );
    }

    #[test]
    fn message_without_a_type_has_any_json_for_its_body() {
        fn any(message: Message) -> Result {
            assert_eq!(message.id, "2026-1");
            assert_eq!(message.topic, "org.example.any");
            let header = ("sent-at".to_owned(), "now".to_owned());
            assert_eq!(message.headers, [header]);
            assert_eq!(message.body[1]["a"], "b");
            Ok(())
        }
        let run = test::message("org.example.any", r#"[0, {"a": "b"}]"#)
            .id("2026-1")
            .header("sent-at", "now")
            .run(any);
        assert_eq!(run.result, Ok(()));
    }
}
