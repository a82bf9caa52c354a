//! Errors of operations on a broker.

use crate::tls::TlsError;

/// Error of an operation on a broker.
#[derive(Debug, thiserror::Error)]
pub enum AmqpError {
    #[error("RabbitMQ at `{broker}`: cannot {action}")]
    Protocol { broker: String, action: &'static str, source: lapin::Error },
    #[error("RabbitMQ at `{broker}`: cannot connect with TLS")]
    Tls { broker: String, source: Box<TlsError> },
    #[error("invalid settings for RabbitMQ at `{broker}`: {reason}")]
    Settings { broker: String, reason: String },
    /// The broker cancels a consumer when its queue is deleted or the queue's node stops.
    #[error("RabbitMQ at `{broker}` cancelled the consumer of queue `{queue}`")]
    ConsumerCancelled { broker: String, queue: String },
    #[error("RabbitMQ at `{broker}`: cannot {action}: no answer within {seconds} s")]
    Timeout { broker: String, action: &'static str, seconds: u64 },
    #[error("not connected to RabbitMQ at `{broker}`: {reason}")]
    NotConnected { broker: String, reason: String },
    #[error("RabbitMQ at `{broker}`: cannot {action}: the connection was lost")]
    ConnectionLost { broker: String, action: &'static str },
    #[error("RabbitMQ at `{broker}` did not confirm the publish to `{routing_key}`: {reason}")]
    NotConfirmed { broker: String, routing_key: String, reason: String },
    #[error("RabbitMQ at `{broker}` refused the publish to `{routing_key}`: {reason}")]
    TooLarge { broker: String, routing_key: String, reason: String },
}

impl AmqpError {
    /// Returns the AMQP reply code of the error, if the broker sent one.
    pub fn reply_code(&self) -> Option<u16> {
        let Self::Protocol { source, .. } = self else { return None };
        match source.kind() {
            lapin::ErrorKind::ProtocolError(error) => Some(error.get_id()),
            _ => None,
        }
    }

    /// Returns whether the connection has its maximum number of channels.
    pub(crate) fn is_channel_limit(&self) -> bool {
        let Self::Protocol { source, .. } = self else { return false };
        matches!(source.kind(), lapin::ErrorKind::ChannelsLimitReached)
    }

    /// Returns whether the broker closed a channel, and not the connection, with this error.
    pub(crate) fn is_of_channel(&self) -> bool {
        let Self::Protocol { source, .. } = self else { return false };
        let lapin::ErrorKind::ProtocolError(error) = source.kind() else { return false };
        matches!(error.kind(), lapin::protocol::AMQPErrorKind::Soft(_))
    }
}
