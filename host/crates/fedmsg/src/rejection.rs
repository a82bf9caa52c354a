//! Why bytes from the bus are not a message.

use loopabull_model::{BodyError, MessageIdError, TopicError};

/// Why bytes from the bus are not a message.
///
/// A closed set, so that each reason is a metric label; the texts never hold the body.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    #[error("message has {count} frames, fedmsg sends two")]
    FrameCount { count: usize },
    #[error("topic frame is not UTF-8")]
    TopicNotUtf8,
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error("body has {length} bytes, the limit is {limit}")]
    BodyTooLarge { length: usize, limit: usize },
    #[error("body is not UTF-8")]
    BodyNotUtf8,
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("body does not have the keys of fedmsg: {reason}")]
    BodyShape { reason: String },
    #[error("headers have {length} bytes, the limit is {limit}")]
    HeadersTooLarge { length: usize, limit: usize },
    #[error("envelope says topic `{envelope}`, body says another")]
    TopicMismatch { envelope: String },
    #[error(transparent)]
    MessageId(#[from] MessageIdError),
}

impl Rejection {
    /// Every reason that [`Rejection::reason`] returns.
    pub const REASONS: [&'static str; 13] = [
        "frame-count",
        "topic-not-utf8",
        "bad-topic",
        "body-too-large",
        "body-not-utf8",
        "body-not-json",
        "body-too-deep",
        "lone-surrogate",
        "reserved-key",
        "body-shape",
        "headers-too-large",
        "topic-mismatch",
        "bad-message-id",
    ];

    /// Returns the reason as a short label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::FrameCount { .. } => "frame-count",
            Self::TopicNotUtf8 => "topic-not-utf8",
            Self::Topic(_) => "bad-topic",
            Self::BodyTooLarge { .. } => "body-too-large",
            Self::BodyNotUtf8 => "body-not-utf8",
            Self::Body(BodyError::NotJson { .. }) => "body-not-json",
            Self::Body(BodyError::TooDeep) => "body-too-deep",
            Self::Body(BodyError::LoneSurrogate { .. }) => "lone-surrogate",
            Self::Body(BodyError::ReservedKey) => "reserved-key",
            Self::BodyShape { .. } => "body-shape",
            Self::HeadersTooLarge { .. } => "headers-too-large",
            Self::TopicMismatch { .. } => "topic-mismatch",
            Self::MessageId(_) => "bad-message-id",
        }
    }
}
