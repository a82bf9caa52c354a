//! The broker: its address, its version, and waits on it that have a limit.

use std::time::Duration;

use lapin::types::LongString;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Connection, ConnectionProperties};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::QueueError;

/// How long one step on the broker may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// How long a connection may take to be made: there are no heartbeats yet, and a cable may be cut.
const CONNECT: Duration = Duration::from_secs(5);
/// Seconds between two heartbeats, unless the URL says otherwise. A connection on which nothing came
/// for two of them is dead.
const HEARTBEAT: u16 = 15;

/// A broker's address.
#[derive(Clone, Debug)]
pub(super) struct Broker {
    uri: AMQPUri,
    /// The address without user and password, for errors.
    pub(super) name: String,
}

/// The version of a broker.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Version(pub(super) u32, pub(super) u32, pub(super) u32);

impl Broker {
    pub(super) fn new(url: &str) -> Result<Self, QueueError> {
        let mut uri: AMQPUri = url.parse().map_err(|reason: String| QueueError::Amqp {
            broker: "(not a URL)".to_owned(),
            action: "read the URL",
            source: std::io::Error::other(reason).into(),
        })?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        let authority = &uri.authority;
        let name = format!("{}:{}/{}", authority.host, authority.port, uri.vhost);
        Ok(Self { uri, name })
    }

    pub(super) fn vhost(&self) -> &str {
        &self.uri.vhost
    }

    /// Makes a connection; the broker's own tools show it with its role.
    pub(super) async fn connect(&self, role: &str) -> Result<Connection, QueueError> {
        let name = LongString::from(format!("loopabull-host ({role})"));
        let properties = ConnectionProperties::default().with_connection_name(name);
        let connect = Connection::connect_uri(self.uri.clone(), properties);
        self.wait_for(CONNECT, "connect", connect).await
    }

    /// Asks the broker for its version, by the first step of a handshake that goes no further (AMQP
    /// 0-9-1, 1.4.2.1: `connection.start` has it among the server's properties). Lapin keeps it to
    /// itself. Not known over TLS.
    pub(super) async fn version(&self) -> Option<Version> {
        if self.uri.scheme != AMQPScheme::AMQP {
            return None;
        }
        let authority = &self.uri.authority;
        let ask = async {
            let mut stream =
                TcpStream::connect((authority.host.as_str(), authority.port)).await.ok()?;
            stream.write_all(b"AMQP\0\0\x09\x01").await.ok()?;
            let mut head = [0; 7];
            stream.read_exact(&mut head).await.ok()?;
            let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]).min(64 << 10);
            let mut frame = vec![0; usize::try_from(size).ok()?];
            stream.read_exact(&mut frame).await.ok()?;
            version_in(&frame)
        };
        tokio::time::timeout(CONNECT, ask).await.ok().flatten()
    }

    /// Waits for a step on the broker, but not for ever.
    pub(super) async fn wait<T>(
        &self,
        action: &'static str,
        step: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, QueueError> {
        self.wait_for(PATIENCE, action, step).await
    }

    async fn wait_for<T>(
        &self,
        patience: Duration,
        action: &'static str,
        step: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, QueueError> {
        match tokio::time::timeout(patience, step).await {
            Ok(result) => result.map_err(|source| self.error(action, source)),
            Err(_) => Err(QueueError::Timeout {
                broker: self.name.clone(),
                action,
                seconds: patience.as_secs(),
            }),
        }
    }

    pub(super) fn error(&self, action: &'static str, source: lapin::Error) -> QueueError {
        QueueError::Amqp { broker: self.name.clone(), action, source }
    }

    pub(super) fn lost(&self, action: &'static str) -> QueueError {
        QueueError::Lost { broker: self.name.clone(), action }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// Finds the field `version`, a long string, in the table of server properties.
fn version_in(frame: &[u8]) -> Option<Version> {
    const FIELD: &[u8] = b"\x07versionS";
    let at = frame.windows(FIELD.len()).position(|window| window == FIELD)? + FIELD.len();
    let length = u32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?);
    let text = frame.get(at + 4..at + 4 + usize::try_from(length).ok()?)?;
    let mut numbers = str::from_utf8(text).ok()?.split(['.', '-', '+']).map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some(Version(next()?, next()?, next().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: Option<Version>) {
        assert_eq!(version_in(bytes), expected);
    }

    #[test]
    fn a_version_is_found_among_other_fields() {
        check(b"..\x07productS\0\0\0\x01x\x07versionS\0\0\0\x063.10.8!", Some(Version(3, 10, 8)));
        check(b"\x07versionS\0\0\0\x0b4.0.0-rc.1x", Some(Version(4, 0, 0)));
    }

    #[test]
    fn nonsense_has_no_version() {
        for bytes in [
            &b""[..],
            b"\x07versionS",
            b"\x07versionS\xff\xff\xff\xff1",
            b"\x07versionS\0\0\0\x01x",
        ] {
            check(bytes, None);
        }
    }
}
