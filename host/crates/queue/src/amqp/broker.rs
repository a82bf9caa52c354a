//! The broker: its address, and waits on it that have a limit.

use std::time::Duration;

use lapin::types::LongString;
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties};

use crate::QueueError;

/// How long one step on the broker may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A broker's address.
#[derive(Clone, Debug)]
pub(super) struct Broker {
    uri: AMQPUri,
    /// The address without user and password, for errors.
    pub(super) name: String,
}

impl Broker {
    pub(super) fn new(url: &str) -> Result<Self, QueueError> {
        let uri: AMQPUri = url.parse().map_err(|reason: String| QueueError::Amqp {
            broker: "(not a URL)".to_owned(),
            action: "read the URL",
            source: std::io::Error::other(reason).into(),
        })?;
        let authority = &uri.authority;
        let name = format!("{}:{}/{}", authority.host, authority.port, uri.vhost);
        Ok(Self { uri, name })
    }

    /// Makes a connection; the broker's own tools show it with its role.
    pub(super) async fn connect(&self, role: &str) -> Result<Connection, QueueError> {
        let name = LongString::from(format!("loopabull-host ({role})"));
        let properties = ConnectionProperties::default().with_connection_name(name);
        self.wait("connect", Connection::connect_uri(self.uri.clone(), properties)).await
    }

    /// Waits for a step on the broker, but not for ever.
    pub(super) async fn wait<T>(
        &self,
        action: &'static str,
        step: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, QueueError> {
        match tokio::time::timeout(PATIENCE, step).await {
            Ok(result) => result.map_err(|source| self.error(action, source)),
            Err(_) => Err(QueueError::Timeout {
                broker: self.name.clone(),
                action,
                seconds: PATIENCE.as_secs(),
            }),
        }
    }

    pub(super) fn error(&self, action: &'static str, source: lapin::Error) -> QueueError {
        QueueError::Amqp { broker: self.name.clone(), action, source }
    }
}
