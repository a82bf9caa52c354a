//! The message that a task handles.
//!
//! The body is parsed into the type in the task's signature. The modules `entry` (in a component) and `test`
//! (in native tests) create messages and pass them to the task.

use serde::de::DeserializeOwned;

use crate::failure::{Failure, Result};

/// A verified message from the bus.
///
/// `T` is the type of the body: any type that implements [`serde::Deserialize`] and borrows nothing.
/// Fields of the body that `T` does not name are ignored. The body of a plain `Message` is a
/// [`serde_json::Value`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<T = serde_json::Value> {
    /// The id that the publisher assigned. A redelivered message has the same id, so that the id can be used
    /// to deduplicate messages.
    pub id: String,
    /// The dotted topic, for example `org.fedoraproject.prod.buildsys.build.state.change`.
    pub topic: String,
    /// The headers in the order in which they were received, including duplicates.
    pub headers: Vec<(String, String)>,
    /// The body, parsed from JSON.
    pub body: T,
}

impl<T: DeserializeOwned> Message<T> {
    /// Creates a message from its parts. `body` is JSON text.
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
    fn unknown_fields_of_the_body_are_ignored() {
        check(br#"{"name": "bull", "new": [1, {}]}"#, Ok(()));
    }

    #[test]
    fn a_body_without_a_required_field_is_rejected() {
        check(
            br#"{"new": 1}"#,
            rejected("body does not fit the task: missing field `name` at line 1 column 10"),
        );
    }

    #[test]
    fn a_body_that_is_not_json_is_rejected() {
        check(
            b"",
            rejected("body does not fit the task: EOF while parsing a value at line 1 column 0"),
        );
    }

    #[test]
    fn a_body_that_is_not_utf8_is_rejected() {
        check(
            b"{\"name\": \"\xff\"}",
            rejected("body does not fit the task: invalid unicode code point at line 1 column 11"),
        );
    }

    #[test]
    fn a_message_without_a_body_type_accepts_any_json() {
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
