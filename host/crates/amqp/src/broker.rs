//! The broker: its address, its version, and waits on it that have a limit.

use std::time::Duration;

use lapin::types::{LongString, ShortString};
use lapin::uri::{AMQPScheme, AMQPUri, SASLMechanism};
use lapin::{Connection, ConnectionProperties};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::bus::{BusConfig, TlsFiles};
use super::tls;
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
    /// With what TLS is done; lapin's own way if it is none.
    tls: Option<TlsFiles>,
    client_properties: Vec<(ShortString, LongString)>,
}

/// The version of a broker.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Version(pub(super) u32, pub(super) u32, pub(super) u32);

impl Broker {
    pub(super) fn new(url: &str) -> Result<Self, QueueError> {
        Ok(Self::of(parse(url)?))
    }

    /// The broker of a bus, as the Python package would reach it.
    pub(super) fn of_bus(config: &BusConfig) -> Result<Self, QueueError> {
        let mut uri = parse(&config.amqp_url)?;
        if uri.vhost.is_empty() {
            uri.vhost = "/".to_owned();
        }
        let is_tls = uri.scheme == AMQPScheme::AMQPS;
        if is_tls && config.tls.is_identity() {
            uri.query.auth_mechanism = Some(SASLMechanism::External);
        }
        let mut broker = Self::of(uri);
        broker.tls = is_tls.then(|| config.tls.clone());
        let ours = [("product", "loopabull-host"), ("version", env!("CARGO_PKG_VERSION"))];
        broker.client_properties = ours.map(|(name, value)| (name.into(), value.into())).into();
        for (name, value) in &config.client_properties {
            let name = ShortString::try_new(name.as_str())
                .map_err(|error| broker.unusable(format!("client property `{name}`: {error}")))?;
            broker.client_properties.push((name, value.as_str().into()));
        }
        Ok(broker)
    }

    fn of(mut uri: AMQPUri) -> Self {
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        let authority = &uri.authority;
        let name = format!("{}:{}/{}", authority.host, authority.port, uri.vhost);
        Self { uri, name, tls: None, client_properties: Vec::new() }
    }

    pub(super) fn vhost(&self) -> &str {
        &self.uri.vhost
    }

    /// Makes a connection; the broker's own tools show it with its role.
    pub(super) async fn connect(&self, role: &str) -> Result<Connection, QueueError> {
        let name = LongString::from(format!("loopabull-host ({role})"));
        let mut properties = ConnectionProperties::default().with_connection_name(name);
        for (name, value) in &self.client_properties {
            properties = properties.with_client_property(name.clone(), value.clone());
        }
        let uri = self.uri.clone();
        let Some(files) = &self.tls else {
            let connect = Connection::connect_uri(uri, properties);
            return self.wait_for(CONNECT, "connect", connect).await;
        };
        let tls = |source| QueueError::Tls { broker: self.name.clone(), source: Box::new(source) };
        let host = &self.uri.authority.host;
        let connect = tls::connect(uri, properties, files.read(host).map_err(tls)?);
        let error = match self.wait_for(CONNECT, "connect", connect).await {
            Err(QueueError::Amqp { source, .. }) => source,
            other => return other,
        };
        match files.explain(&self.uri, &error).await {
            Some(source) => Err(tls(source)),
            None => Err(self.error("connect", error)),
        }
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

    pub(super) fn unusable(&self, reason: String) -> QueueError {
        QueueError::Settings { broker: self.name.clone(), reason }
    }

    pub(super) fn lost(&self, action: &'static str) -> QueueError {
        QueueError::Lost { broker: self.name.clone(), action }
    }
}

fn parse(url: &str) -> Result<AMQPUri, QueueError> {
    let mut uri: AMQPUri = url.parse().map_err(|reason: String| QueueError::Amqp {
        broker: "(not a URL)".to_owned(),
        action: "read the URL",
        source: std::io::Error::other(reason).into(),
    })?;
    // Lapin takes an IPv6 address for none, and connects to itself.
    let authority = url.split("://").nth(1).and_then(|rest| rest.split(['/', '?']).next());
    let host = authority.and_then(|authority| authority.rsplit_once('[')?.1.split_once(']'));
    if let Some((host, _)) = host {
        uri.authority.host = host.to_owned();
    }
    Ok(uri)
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

    fn check_bus(url: &str, expected: &str) {
        let config = BusConfig { amqp_url: url.to_owned(), ..BusConfig::default() };
        assert_eq!(Broker::of_bus(&config).unwrap().name, expected);
    }

    #[test]
    fn the_broker_of_a_bus_is_the_one_of_the_python_package() {
        check_bus("amqp://?connection_attempts=3&retry_delay=5", "localhost:5672//");
        check_bus(
            "amqps://fedora:@example.org/%2Fpublic_pubsub",
            "example.org:5671//public_pubsub",
        );
        check_bus("amqp://example.org/", "example.org:5672//");
        check_bus("amqp://u:p@[2001:db8::1]:77/v", "2001:db8::1:77/v");
        check_bus("amqp://127.0.0.1", "127.0.0.1:5672//");
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
