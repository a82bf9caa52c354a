//! An envelope: a fedmsg message that is parsed and not yet verified.
//!
//! On the wire, a message is two ZeroMQ frames: the topic, and a JSON object in UTF-8 (fedora-infra/fedmsg,
//! `fedmsg/core.py`, `FedMsgContext.publish`). This module checks the form of the two frames, but no
//! signature. [`Verifier::verify`](crate::Verifier::verify) checks the signature and makes the message.

use std::collections::BTreeMap;
use std::ops::Range;

use loopabull_model::{Body, BodyError, Topic};
use serde_json::Value;

use crate::canonical::{self, Credentials, Document, Member};
use crate::{Rejection, headers};

/// The maximum size of a body, in bytes: 8 MiB. The largest body seen on Fedora's bus has 131 KB.
pub const MAX_BODY_BYTES: usize = 8 << 20;

/// A fedmsg message that is parsed and not yet verified.
#[derive(Debug)]
pub struct Envelope {
    /// Topic in the first frame.
    pub(crate) topic: Topic,
    /// JSON text of the second frame.
    pub(crate) text: String,
    pub(crate) fields: Fields,
    pub(crate) signed: Signed,
}

/// The keys of a fedmsg body that the host reads. Other keys may have any value. A signature covers all keys.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    pub(crate) topic: Option<String>,
    pub(crate) msg_id: Option<String>,
    /// Seconds since 1970: an integer, or a float in old versions of fedmsg.
    pub(crate) timestamp: Option<serde_json::Number>,
    pub(crate) headers: Option<BTreeMap<String, Value>>,
    /// Byte range of the payload in the text.
    pub(crate) msg: Option<Range<usize>>,
    pub(crate) crypto: Field,
    pub(crate) signature: Field,
    pub(crate) certificate: Field,
}

/// The value of a key that only the signature check reads. If signatures are not checked, the key may have
/// any value.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) enum Field {
    #[default]
    Absent,
    /// Byte range of the string in the text of the body, including its quotes and escapes.
    Text(Range<usize>),
    NotText,
}

/// The text that the signature covers.
#[derive(Debug)]
pub(crate) struct Signed {
    /// Body without `signature` and `certificate`, in canonical JSON.
    pub(crate) canonical: String,
    /// Byte range of the payload in `canonical`.
    pub(crate) msg: Option<Range<usize>>,
}

impl Envelope {
    /// Parses a multipart message.
    ///
    /// `count` is the number of received frames. Of more than two frames, the caller passes only the first
    /// two, so that the caller does not have to keep the others.
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

    /// Parses a body that was received under this topic.
    pub(crate) fn from_parts(topic: Topic, body: &[u8]) -> Result<Self, Rejection> {
        if body.len() > MAX_BODY_BYTES {
            return Err(Rejection::BodyTooLarge { length: body.len(), limit: MAX_BODY_BYTES });
        }
        let text = str::from_utf8(body).map_err(|_| Rejection::BodyNotUtf8)?;
        let document = read(text)?;
        let Some(members) = document.members() else {
            return Err(Rejection::shape("it is not an object"));
        };
        let fields = Fields::of(members, text)?;
        let (canonical, msg) = document.to_canonical(Credentials::LeftOut);
        Ok(Self { topic, text: text.to_owned(), fields, signed: Signed { canonical, msg } })
    }

    /// Returns the topic under which the envelope was received.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Returns the id in the body. It is not checked, and the body may have none.
    pub fn id(&self) -> Option<&str> {
        self.fields.msg_id.as_deref()
    }
}

impl Fields {
    fn of(members: &[Member<'_>], text: &str) -> Result<Self, Rejection> {
        let mut fields = Self::default();
        for Member { key, span, is_repeated, .. } in members {
            let key = key.decoded();
            let key = str::from_utf8(&key).unwrap_or_default();
            let raw = &text[span.clone()];
            let field =
                if raw.starts_with('"') { Field::Text(span.clone()) } else { Field::NotText };
            match key {
                "topic" => fields.topic = parse(key, raw)?,
                "msg_id" => fields.msg_id = parse(key, raw)?,
                "timestamp" => fields.timestamp = parse(key, raw)?,
                "headers" => {
                    headers::check_written(raw)?;
                    fields.headers = parse(key, raw)?;
                }
                "msg" => fields.msg = Some(span.clone()),
                "crypto" => fields.crypto = field,
                "signature" => fields.signature = field,
                "certificate" => fields.certificate = field,
                _ => continue,
            }
            // If a key is repeated, JSON readers differ in which of the values they use. So a repeated key is
            // refused.
            if *is_repeated {
                return Err(Rejection::shape(&format!("duplicate field `{key}`")));
            }
        }
        Ok(fields)
    }
}

/// Reads the whole text. Ordinary texts are parsed only once.
fn read(text: &str) -> Result<Document<'_>, Rejection> {
    match canonical::parse(text) {
        Ok(document) if !document.is_odd => Ok(document),
        // Python accepts some texts that tasks cannot read. `Body::parse` refuses these texts, and gives the
        // reason.
        Ok(document) => Body::parse(text).map(|_| document).map_err(Rejection::from),
        Err(error) => {
            Body::parse(text)?;
            Err(BodyError::NotJson { reason: error.to_string() }.into())
        }
    }
}

fn parse<'a, T: serde::Deserialize<'a>>(key: &str, raw: &'a str) -> Result<T, Rejection> {
    serde_json::from_str(raw).map_err(|error| Rejection::shape(&format!("`{key}`: {error}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &[u8] = br#"{"topic":"a.b","msg":{}}"#;

    fn check(frames: &[&[u8]], expected: &str) {
        let reason = match Envelope::parse(frames, frames.len()) {
            Ok(_) => "accepted",
            Err(rejection) => rejection.reason(),
        };
        assert_eq!(reason, expected);
    }

    #[test]
    fn two_frames_are_a_message() {
        check(&[b"a.b", GOOD], "accepted");
        check(&[b"a.b", b" {\"msg\": 1, \"more\": [1.0, null]} "], "accepted");
    }

    #[test]
    fn another_number_of_frames_is_refused() {
        check(&[], "frame-count");
        check(&[b"a.b"], "frame-count");
        check(&[b"a.b", GOOD, b""], "frame-count");
        let rejection = Envelope::parse(&[b"a.b", GOOD], 7).unwrap_err();
        assert_eq!(rejection.to_string(), "message has 7 frames, but a fedmsg message has two");
    }

    #[test]
    fn an_invalid_topic_is_refused() {
        check(&[b"\xff", GOOD], "topic-not-utf8");
        check(&[b"../../etc/passwd", GOOD], "bad-topic");
        check(&[b"a.\0", GOOD], "bad-topic");
        check(&["a".repeat(300).as_bytes(), GOOD], "bad-topic");
        check(&[b"", GOOD], "bad-topic");
    }

    #[test]
    fn an_invalid_body_is_refused() {
        check(&[b"a.b", b"\xff\xfe"], "body-not-utf8");
        check(&[b"a.b", b"{"], "body-not-json");
        check(&[b"a.b", b""], "body-not-json");
        check(&[b"a.b", b"[]"], "body-shape");
        check(&[b"a.b", b"\"text\""], "body-shape");
        check(&[b"a.b", br#"{"topic":5,"msg":{}}"#], "body-shape");
        check(&[b"a.b", br#"{"timestamp":"5","msg":{}}"#], "body-shape");
        check(&[b"a.b", br#"{"msg":1,"m\u0073g":2}"#], "body-shape");
        check(&[b"a.b", br#"{"msg":1,"signature":"a","signature":"b"}"#], "body-shape");
        check(&[b"a.b", br#"{"msg":1,"more":1,"more":2}"#], "accepted");
        check(&[b"a.b", "[".repeat(100_000).as_bytes()], "body-too-deep");
        check(&[b"a.b", br#"{"msg":"\ud800"}"#], "lone-surrogate");
        check(&[b"a.b", br#"{"msg":{"\udfff":1}}"#], "lone-surrogate");
        check(&[b"a.b", br#"{"msg":1,"more":NaN}"#], "body-not-json");
        check(&[b"a.b", br#"{"msg":-Infinity}"#], "body-not-json");
        check(&[b"a.b", br#"{"msg":1e400}"#], "accepted");
        check(&[b"a.b", br#"{"msg":"$serde_json::private::Number"}"#], "reserved-key");
        check(&[b"a.b", br#"{"msg":{"\u0024serde_json::private::RawValue":"1"}}"#], "reserved-key");
        check(&[b"a.b", br#"{"msg":"$5"}"#], "accepted");
        let digits = format!("{{\"msg\":{}}}", "1".repeat(4301));
        check(&[b"a.b", digits.as_bytes()], "body-not-json");
        let large = format!("{{\"msg\":\"{}\"}}", "a".repeat(MAX_BODY_BYTES));
        check(&[b"a.b", large.as_bytes()], "body-too-large");
    }

    proptest! {
        #[test]
        fn parsing_never_panics(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..4)) {
            let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
            if let Err(rejection) = Envelope::parse(&frames, frames.len()) {
                prop_assert!(Rejection::REASONS.contains(&rejection.reason()));
            }
        }

        #[test]
        fn parsing_json_like_text_never_panics(body in r#"[\[\]{}",:\\u0-9a-f.eE+-]{0,40}"#) {
            drop(Envelope::parse(&[b"a.b", body.as_bytes()], 2));
        }
    }
}
