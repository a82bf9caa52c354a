//! A broker: its address, its version, the connection to it, and the timeout of each request to it.

use std::time::Duration;

use lapin::types::{LongString, ShortString};
use lapin::uri::{AMQPScheme, AMQPUri, SASLMechanism};
use lapin::{Connection, ConnectionProperties};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::error::AmqpError;
use crate::tls::{self, TlsFiles};

/// Timeout of one request to the broker.
pub const STEP_TIMEOUT: Duration = Duration::from_secs(20);
/// Timeout for connecting. Heartbeats begin only after the connection is open. Before that, only this timeout
/// detects a cut cable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Heartbeat interval in seconds, unless the URL sets another. A connection is lost if nothing arrives on it
/// for two intervals.
const HEARTBEAT_INTERVAL_S: u16 = 15;

/// The reason why a URL with a user or a password is invalid.
const BAD_CREDENTIALS: &str = "it is not a valid URL; in the user name and the password, write `@` as `%40`, `/` as \
     `%2f`, `:` as `%3a`, `#` as `%23`, `?` as `%3f` and `%` as `%25`";

/// The address of a broker, and the settings for connecting to it.
#[derive(Clone, Debug)]
pub struct Broker {
    uri: AMQPUri,
    /// Address without user and password.
    name: String,
    /// Files for TLS. If there are none, lapin sets up TLS and trusts the system's authorities.
    tls: Option<TlsFiles>,
    client_properties: Vec<(ShortString, LongString)>,
}

/// The version of a broker: major, minor, patch.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Version(pub u32, pub u32, pub u32);

impl Broker {
    /// Reads the URL of a broker: `amqp://user:password@host:port/vhost`, or `amqps://…`. An empty vhost
    /// means `/`, as in the Python packages pika, kombu and fedora-messaging.
    pub fn new(url: &str) -> Result<Self, AmqpError> {
        let mut uri = parse(url)?;
        if uri.vhost.is_empty() {
            uri.vhost = "/".to_owned();
        }
        Ok(Self::from_uri(uri))
    }

    /// Sets the files for TLS, which are used only if the URL begins with `amqps`. If the files contain a
    /// client certificate, we log in with the certificate (AMQP's `EXTERNAL`) and ignore the user and
    /// password of the URL.
    #[must_use]
    pub fn with_tls(mut self, files: &TlsFiles) -> Self {
        if self.uri.scheme == AMQPScheme::AMQPS {
            if files.has_identity() {
                self.uri.query.auth_mechanism = Some(SASLMechanism::External);
            }
            self.tls = Some(files.clone());
        }
        self
    }

    /// Adds a client property, which RabbitMQ's tools show with the connection. Returns an error if the name
    /// is too long for AMQP.
    pub fn with_client_property(mut self, name: &str, value: &str) -> Result<Self, AmqpError> {
        let short = ShortString::try_new(name)
            .map_err(|error| self.invalid_settings(format!("client property `{name}`: {error}")))?;
        self.client_properties.push((short, value.into()));
        Ok(self)
    }

    fn from_uri(mut uri: AMQPUri) -> Self {
        uri.query.heartbeat.get_or_insert(HEARTBEAT_INTERVAL_S);
        let authority = &uri.authority;
        let host = match authority.host.contains(':') {
            true => format!("[{}]", authority.host),
            false => authority.host.clone(),
        };
        // As in a URL, so that the vhost `/` can be seen.
        let vhost = uri.vhost.replace('/', "%2F");
        let name = format!("{host}:{}/{vhost}", authority.port);
        Self { uri, name, tls: None, client_properties: Vec::new() }
    }

    /// Returns the address without user and password, for logs and errors: `host:port/vhost`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the virtual host.
    pub fn vhost(&self) -> &str {
        &self.uri.vhost
    }

    /// Connects to the broker. RabbitMQ's tools show `role` in the name of the connection.
    pub async fn connect(&self, role: &str) -> Result<Connection, AmqpError> {
        let name = LongString::from(format!("loopabull-host ({role})"));
        let mut properties = ConnectionProperties::default().with_connection_name(name);
        for (name, value) in &self.client_properties {
            properties = properties.with_client_property(name.clone(), value.clone());
        }
        let uri = self.uri.clone();
        let Some(files) = &self.tls else {
            let connect = Connection::connect_uri(uri, properties);
            return self.wait_for(CONNECT_TIMEOUT, "connect", connect).await;
        };
        let tls = |source| AmqpError::Tls { broker: self.name.clone(), source: Box::new(source) };
        let host = &self.uri.authority.host;
        let connect = tls::connect(uri, properties, files.client_config(host).map_err(tls)?);
        let error = match self.wait_for(CONNECT_TIMEOUT, "connect", connect).await {
            Err(AmqpError::Protocol { source, .. }) => source,
            other => return other,
        };
        match files.explain(&self.uri, &error).await {
            Some(source) => Err(tls(source)),
            None => Err(self.error("connect", error)),
        }
    }

    /// Asks the broker for its version. Returns `None` over TLS, and if the broker does not answer.
    ///
    /// Lapin does not expose the version. So this function opens a connection of its own and reads only the
    /// first frame of the handshake, `connection.start`. That frame contains the version (AMQP 0-9-1,
    /// 1.4.2.1).
    pub async fn version(&self) -> Option<Version> {
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
        tokio::time::timeout(CONNECT_TIMEOUT, ask).await.ok().flatten()
    }

    /// Waits for one request to the broker, for at most [`STEP_TIMEOUT`].
    ///
    /// `action` is the text after "cannot" in the error.
    pub async fn wait<T>(
        &self,
        action: &'static str,
        step: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, AmqpError> {
        self.wait_for(STEP_TIMEOUT, action, step).await
    }

    async fn wait_for<T>(
        &self,
        limit: Duration,
        action: &'static str,
        step: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, AmqpError> {
        match tokio::time::timeout(limit, step).await {
            Ok(result) => result.map_err(|source| self.error(action, source)),
            Err(_) => Err(AmqpError::Timeout {
                broker: self.name.clone(),
                action,
                seconds: limit.as_secs(),
            }),
        }
    }

    /// Returns the error for a request to this broker that failed in lapin.
    pub fn error(&self, action: &'static str, source: lapin::Error) -> AmqpError {
        AmqpError::Protocol { broker: self.name.clone(), action, source }
    }

    /// Returns the error for settings that cannot be used with this broker.
    pub fn invalid_settings(&self, reason: String) -> AmqpError {
        AmqpError::Settings { broker: self.name.clone(), reason }
    }

    /// Returns the error for a connection that was lost during `action`.
    pub fn connection_lost(&self, action: &'static str) -> AmqpError {
        AmqpError::ConnectionLost { broker: self.name.clone(), action }
    }

    /// Returns the error for a consumer that the broker cancelled.
    pub fn consumer_cancelled(&self, queue: &str) -> AmqpError {
        AmqpError::ConsumerCancelled { broker: self.name.clone(), queue: queue.to_owned() }
    }
}

fn parse(url: &str) -> Result<AMQPUri, AmqpError> {
    let mut uri: AMQPUri = url.parse().map_err(|reason: String| {
        // The reason contains the part of the URL that was not understood, which may be a piece of the password.
        let reason = if url.contains('@') { BAD_CREDENTIALS.to_owned() } else { reason };
        AmqpError::Protocol {
            broker: "(invalid URL)".to_owned(),
            action: "parse the URL",
            source: std::io::Error::other(reason).into(),
        }
    })?;
    // Lapin does not understand an IPv6 address in a URL, and connects to localhost instead. So we read the
    // address ourselves.
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

/// Returns the version in the first frame of a broker. It is the value of the field `version`, a long string.
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
    fn the_version_is_found_among_other_fields() {
        check(b"..\x07productS\0\0\0\x01x\x07versionS\0\0\0\x063.10.8!", Some(Version(3, 10, 8)));
        check(b"\x07versionS\0\0\0\x0b4.0.0-rc.1x", Some(Version(4, 0, 0)));
    }

    fn check_name(url: &str, expected: &str) {
        assert_eq!(Broker::new(url).unwrap().name, expected);
    }

    #[test]
    fn a_url_names_the_same_broker_as_in_the_python_package() {
        check_name("amqp://?connection_attempts=3&retry_delay=5", "localhost:5672/%2F");
        check_name(
            "amqps://fedora:@example.org/%2Fpublic_pubsub",
            "example.org:5671/%2Fpublic_pubsub",
        );
        check_name("amqp://example.org/", "example.org:5672/%2F");
        check_name("amqp://u:p@[2001:db8::1]:77/v", "[2001:db8::1]:77/v");
        check_name("amqp://127.0.0.1", "127.0.0.1:5672/%2F");
    }

    #[test]
    fn a_frame_without_a_valid_version_has_none() {
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
