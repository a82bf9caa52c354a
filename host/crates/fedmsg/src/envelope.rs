//! An envelope: a fedmsg message that has been taken apart and is not yet believed.
//!
//! Wire form: two ZeroMQ frames, the topic and a JSON object in UTF-8
//! (fedora-infra/fedmsg, `fedmsg/core.py`, `FedMsgContext.publish`).
//! After it on the path of a message: [`Verifier::verify`](crate::Verifier::verify).

use std::collections::BTreeMap;

use loopabull_model::{Body, Topic};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::Rejection;

/// The largest body that is taken, in bytes: 8 MiB. The largest seen on Fedora's bus has 131 KB.
pub const MAX_BODY_BYTES: usize = 8 << 20;

/// A fedmsg message that has been taken apart and is not yet believed.
#[derive(Debug)]
pub struct Envelope {
    /// The topic of the first frame.
    pub(crate) topic: Topic,
    /// The whole JSON text of the second frame: what a signature covers.
    pub(crate) text: String,
    pub(crate) fields: Fields,
}

/// The keys of a fedmsg body that we read. Others are kept in the text and may be anything.
#[derive(Debug, Deserialize)]
pub(crate) struct Fields {
    pub(crate) topic: Option<String>,
    pub(crate) msg_id: Option<String>,
    /// Whole seconds, or with a fraction in old versions.
    pub(crate) timestamp: Option<serde_json::Number>,
    pub(crate) headers: Option<BTreeMap<String, Value>>,
    #[serde(default, deserialize_with = "present")]
    pub(crate) msg: Option<Box<RawValue>>,
}

/// Reads a value that may be `null` and is there all the same, where serde would say `None`.
pub(crate) fn present<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::deserialize(deserializer).map(Some)
}

impl Envelope {
    /// Takes a multipart message apart.
    ///
    /// `count` is how many frames came; of a message with more than two only the first two need to
    /// be handed in, so that a source never has to keep the rest.
    pub fn parse(frames: &[&[u8]], count: usize) -> Result<Self, Rejection> {
        let &[topic, body] = frames else {
            return Err(Rejection::FrameCount { count });
        };
        if count != 2 {
            return Err(Rejection::FrameCount { count });
        }
        let topic = str::from_utf8(topic).map_err(|_| Rejection::TopicNotUtf8)?;
        Self::from_parts(Topic::try_from(topic)?, body)
    }

    /// Takes a body apart that came under this topic.
    pub(crate) fn from_parts(topic: Topic, body: &[u8]) -> Result<Self, Rejection> {
        if body.len() > MAX_BODY_BYTES {
            return Err(Rejection::BodyTooLarge { length: body.len(), limit: MAX_BODY_BYTES });
        }
        let text = str::from_utf8(body).map_err(|_| Rejection::BodyNotUtf8)?;
        // First the whole text, with its depth and its strings; only then our keys in it.
        Body::parse(text)?;
        let fields = serde_json::from_str(text)
            .map_err(|error| Rejection::BodyShape { reason: error.to_string() })?;
        Ok(Self { topic, text: text.to_owned(), fields })
    }

    /// Returns the topic under which the envelope came.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &[u8] = br#"{"topic":"a.b","msg":{}}"#;

    fn check(frames: &[&[u8]], expected: &str) {
        let reason = match Envelope::parse(frames, frames.len()) {
            Ok(_) => "taken",
            Err(rejection) => rejection.reason(),
        };
        assert_eq!(reason, expected);
    }

    #[test]
    fn two_frames_are_a_message() {
        check(&[b"a.b", GOOD], "taken");
        check(&[b"a.b", b" {\"msg\": 1, \"more\": [1.0, null]} "], "taken");
    }

    #[test]
    fn another_number_of_frames_is_refused() {
        check(&[], "frame-count");
        check(&[b"a.b"], "frame-count");
        check(&[b"a.b", GOOD, b""], "frame-count");
        let rejection = Envelope::parse(&[b"a.b", GOOD], 7).unwrap_err();
        assert_eq!(rejection.to_string(), "message has 7 frames, fedmsg sends two");
    }

    #[test]
    fn a_topic_that_is_none_is_refused() {
        check(&[b"\xff", GOOD], "topic-not-utf8");
        check(&[b"../../etc/passwd", GOOD], "bad-topic");
        check(&[b"a.\0", GOOD], "bad-topic");
        check(&["a".repeat(300).as_bytes(), GOOD], "bad-topic");
        check(&[b"", GOOD], "bad-topic");
    }

    #[test]
    fn a_body_that_is_none_is_refused() {
        check(&[b"a.b", b"\xff\xfe"], "body-not-utf8");
        check(&[b"a.b", b"{"], "body-not-json");
        check(&[b"a.b", b""], "body-not-json");
        check(&[b"a.b", b"[]"], "body-shape");
        check(&[b"a.b", b"\"text\""], "body-shape");
        check(&[b"a.b", br#"{"topic":5,"msg":{}}"#], "body-shape");
        check(&[b"a.b", "[".repeat(100_000).as_bytes()], "body-too-deep");
        check(&[b"a.b", br#"{"msg":"\ud800"}"#], "lone-surrogate");
        let large = format!("{{\"msg\":\"{}\"}}", "a".repeat(MAX_BODY_BYTES));
        check(&[b"a.b", large.as_bytes()], "body-too-large");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..4)) {
            let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
            if let Err(rejection) = Envelope::parse(&frames, frames.len()) {
                prop_assert!(Rejection::REASONS.contains(&rejection.reason()));
            }
        }

        #[test]
        fn no_json_like_text_makes_it_panic(body in r#"[\[\]{}",:\\u0-9a-f.eE+-]{0,40}"#) {
            drop(Envelope::parse(&[b"a.b", body.as_bytes()], 2));
        }
    }
}
