//! The reasons why bytes from a source are not accepted as a message.

use loopabull_model::{BodyError, MessageIdError, TopicError};

use crate::SignatureError;

/// The reason why bytes from a source are not accepted as a message.
///
/// The set of reasons is fixed, so that each reason can be a metric label. The texts never contain the body
/// of a message.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    #[error("message has {count} frames, but a fedmsg message has two")]
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
    #[error("body does not have the form of a message: {reason}")]
    BodyShape { reason: String },
    #[error("headers have {length} bytes, the limit is {limit}")]
    HeadersTooLarge { length: usize, limit: usize },
    #[error("topic of the body differs from the topic `{envelope}` of its envelope")]
    TopicMismatch { envelope: String },
    #[error(transparent)]
    MessageId(#[from] MessageIdError),
    #[error(transparent)]
    Signature(#[from] SignatureError),
}

impl Rejection {
    /// Makes the rejection of a JSON text that does not have the form of a message.
    pub(crate) fn shape(reason: &str) -> Self {
        Self::BodyShape { reason: reason.to_owned() }
    }

    /// All reasons that [`Rejection::reason`] returns. The reasons of [`SignatureError`] come last.
    pub const REASONS: [&'static str; 40] = [
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
        "unsigned",
        "gpg-signature",
        "unknown-crypto",
        "topic-missing",
        "signature-missing",
        "certificate-missing",
        "credential-not-text",
        "bad-base64",
        "certificate-unreadable",
        "other-ca",
        "certificate-algorithm",
        "certificate-forged",
        "critical-extension",
        "certificate-not-yet-valid",
        "certificate-expired",
        "certificate-revoked",
        "ca-not-yet-valid",
        "ca-expired",
        "ca-revoked",
        "crl-not-yet-valid",
        "crl-expired",
        "bad-key",
        "common-name-missing",
        "bad-common-name",
        "signature-wrong",
        "signer-not-allowed",
        "topic-not-in-policy",
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
            Self::Signature(error) => error.reason(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signature_error_is_a_reason_and_no_reason_is_repeated() {
        let first = Rejection::REASONS.len() - SignatureError::REASONS.len();
        assert_eq!(Rejection::REASONS[first..], SignatureError::REASONS);
        let different: std::collections::HashSet<_> = Rejection::REASONS.into_iter().collect();
        assert_eq!(different.len(), Rejection::REASONS.len());
    }
}
