//! Settings of the fedmsg source, of the datagrepper source, and of deduplication.
//!
//! The settings of a fedora-messaging bus are in the crate `loopabull-fedora-messaging`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use loopabull_model::{AddressBlock, Topic};
use serde::de::value::MapAccessDeserializer;
use serde::de::{IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Default interval at which the CA and CRL files are reread.
const REFRESH_INTERVAL: Duration = Duration::from_hours(1);

/// Settings of the fedmsg source.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fedmsg {
    /// ZeroMQ endpoints of publishers. Each is an address such as `tcp://127.0.0.1:4001`, or a
    /// table with settings.
    pub endpoints: Vec<Endpoint>,
    /// Topic prefixes to subscribe to. ZeroMQ compares them byte by byte. Default: all topics.
    pub topics: Vec<String>,
    /// Whether signatures are checked.
    pub verify: Verify,
    /// File with the certificate (PEM) of the CA that issues the publishers' certificates. Only the
    /// first certificate in the file is used.
    pub ca: Option<PathBuf>,
    /// File with the certificate revocation list of the CA. Default: no certificate is revoked.
    pub crl: Option<PathBuf>,
    /// Interval at which the CA and CRL files are reread. On SIGHUP, they are reread at once.
    /// Default: 1 hour.
    #[serde(deserialize_with = "positive")]
    pub refresh: Duration,
    /// Allowed signers of each topic. A signer is the common name of a certificate. If a topic is
    /// not listed, every trusted signer may publish it, unless `nitpicky` is set.
    pub policy: BTreeMap<String, Vec<String>>,
    /// Whether messages are rejected if the policy does not list their topic (`routing_nitpicky` in
    /// fedmsg).
    pub nitpicky: bool,
    /// Maximum total size of the messages in the spool, where messages wait while their queue is
    /// unavailable. Default: 256 MiB.
    pub spool: ByteSize,
}

/// The endpoint of a publisher.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Endpoint {
    /// Address of the publisher's socket.
    pub address: String,
    /// Interval between ZMTP heartbeats. The publisher must reply to each heartbeat within the same
    /// time. None for a publisher with libzmq before 4.2, which does not reply to heartbeats.
    pub heartbeat: Option<Duration>,
    /// Time without a message after which the connection is replaced. None for a publisher that
    /// rarely sends messages.
    pub idle: Option<Duration>,
}

/// An endpoint that the configuration file specifies as a table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EndpointTable {
    address: String,
    #[serde(default = "heartbeat", deserialize_with = "duration_or_off")]
    heartbeat: Option<Duration>,
    #[serde(default = "idle", deserialize_with = "duration_or_off")]
    idle: Option<Duration>,
}

impl Endpoint {
    /// Returns true if the address contains an IPv6 address.
    pub(crate) fn is_ipv6(&self) -> bool {
        self.address.starts_with("tcp://[")
    }

    /// Returns the reason why ZeroMQ cannot connect to the address.
    pub(super) fn problem(&self) -> Option<&'static str> {
        if self.address.starts_with("ipc://") {
            return None;
        }
        let Some(place) = self.address.strip_prefix("tcp://") else {
            return Some("it does not begin with `tcp://` or `ipc://`");
        };
        let Some((host, port)) = place.rsplit_once(':') else { return Some("it has no port") };
        let ip = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        match port.parse::<u16>() {
            Ok(0) | Err(_) => Some("its port is not a number from 1 to 65535"),
            Ok(_) if host.is_empty() => Some("it has no host"),
            Ok(_) => match ip {
                Some(ip) if ip.parse::<Ipv6Addr>().is_err() => {
                    Some("the text in brackets is not an IPv6 address")
                }
                None if host.contains(':') => Some("an IPv6 address needs brackets"),
                _ => None,
            },
        }
    }
}

impl From<String> for Endpoint {
    fn from(address: String) -> Self {
        Self { address, heartbeat: heartbeat(), idle: idle() }
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Endpoint;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address, or a table with `address`, `heartbeat` and `idle`")
            }

            fn visit_str<E: serde::de::Error>(self, address: &str) -> Result<Endpoint, E> {
                Ok(address.to_owned().into())
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Endpoint, A::Error> {
                let table = EndpointTable::deserialize(MapAccessDeserializer::new(map))?;
                let EndpointTable { address, heartbeat, idle } = table;
                Ok(Endpoint { address, heartbeat, idle })
            }
        }
        deserializer.deserialize_any(Form)
    }
}

fn heartbeat() -> Option<Duration> {
    Some(Duration::from_secs(30))
}

fn idle() -> Option<Duration> {
    Some(Duration::from_mins(10))
}

/// Settings of datagrepper, the archive of a fedmsg bus.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Datagrepper {
    /// URL of datagrepper, for example `https://apps.fedoraproject.org/datagrepper`.
    pub url: String,
    /// Non-public addresses to which the host name in the URL may resolve.
    #[serde(default)]
    pub addresses: Vec<AddressBlock>,
    /// Topics to search. Default: the topics of all tasks. If a task has a topic pattern, the
    /// default is all topics.
    #[serde(default)]
    pub topics: Vec<Topic>,
    /// Time that consecutive searches have in common. A search begins this much earlier than the
    /// time up to which no message is missing, because clocks differ and dead connections are
    /// detected late. After a connect, a second search follows after the same time. Default: 2
    /// minutes.
    #[serde(default = "overlap", with = "humantime_serde")]
    pub overlap: Duration,
    /// Number of pages, of 100 messages each, after which the search pauses for one minute.
    /// Default: 100.
    #[serde(default = "pages")]
    pub pages: u32,
}

fn overlap() -> Duration {
    Duration::from_mins(2)
}

fn pages() -> u32 {
    100
}

/// Settings of deduplication.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Deduplication {
    /// Time for which a message is remembered. Zero switches deduplication off. Default: 1 day.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// Maximum number of remembered messages. A message counts once for each task that received it.
    /// Default: 200,000.
    pub messages: usize,
}

impl Default for Deduplication {
    fn default() -> Self {
        Self { window: Duration::from_hours(24), messages: 200_000 }
    }
}

/// Whether signatures are checked.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Verify {
    /// Only messages with a valid signature are accepted.
    #[default]
    Required,
    /// Every message is accepted.
    Off,
}

impl Default for Fedmsg {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            topics: vec![String::new()],
            verify: Verify::default(),
            ca: None,
            crl: None,
            refresh: REFRESH_INTERVAL,
            policy: BTreeMap::new(),
            nitpicky: false,
            spool: ByteSize::mib(256),
        }
    }
}

/// Deserializes a positive duration. The text `off` gives `None`.
pub(super) fn duration_or_off<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text == "off" {
        return Ok(None);
    }
    let parsed: Duration =
        humantime_serde::deserialize(IntoDeserializer::<D::Error>::into_deserializer(text))?;
    if parsed.is_zero() {
        return Err(serde::de::Error::custom("must be longer than 0 s, or `off`"));
    }
    Ok(Some(parsed))
}

/// Deserializes a positive duration.
fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let parsed: Duration = humantime_serde::deserialize(deserializer)?;
    if parsed.is_zero() {
        return Err(serde::de::Error::custom("must be longer than 0 s"));
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(text: &str) -> Result<Vec<Endpoint>, String> {
        let config: Result<Fedmsg, _> = toml::from_str(&format!("endpoints = [{text}]"));
        config.map(|config| config.endpoints).map_err(|error| error.to_string())
    }

    #[test]
    fn an_address_that_zeromq_cannot_use_is_explained() {
        let problem = |address: &str| Endpoint::from(address.to_owned()).problem();
        for address in [
            "tcp://a.example:1",
            "tcp://[2001:db8::1]:65535",
            "tcp://127.0.0.1:9940",
            "ipc:///run/bus",
        ] {
            assert_eq!(problem(address), None, "{address}");
        }
        for (address, expected) in [
            ("127.0.0.1:1", "it does not begin with `tcp://` or `ipc://`"),
            ("http://a:1", "it does not begin with `tcp://` or `ipc://`"),
            ("tcp://a", "it has no port"),
            ("tcp://a:0", "its port is not a number from 1 to 65535"),
            ("tcp://a:x", "its port is not a number from 1 to 65535"),
            ("tcp://:1", "it has no host"),
            ("tcp://::1:4001", "an IPv6 address needs brackets"),
            ("tcp://[a]:1", "the text in brackets is not an IPv6 address"),
        ] {
            assert_eq!(problem(address), Some(expected), "{address}");
        }
    }

    #[test]
    fn an_endpoint_is_an_address_or_a_table() {
        let table = "{ address = 'tcp://b:2', heartbeat = 'off', idle = '1h' }";
        let found = endpoints(&format!("'tcp://a:1', {table}")).unwrap();
        let idle = Some(Duration::from_secs(3600));
        let second = Endpoint { address: "tcp://b:2".into(), heartbeat: None, idle };
        assert_eq!(found, ["tcp://a:1".to_owned().into(), second]);
    }

    #[test]
    fn an_endpoint_of_another_form_is_an_error() {
        for text in ["1", "{ idle = 'off' }", "{ address = 'a', idle = 'never' }", "{ a = 1 }"] {
            assert!(endpoints(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_duration_of_zero_is_an_error_where_it_makes_no_sense() {
        let error = endpoints("{ address = 'a', idle = '0s' }").unwrap_err();
        assert!(error.contains("must be longer than 0 s, or `off`"), "{error}");
        assert!(toml::from_str::<Fedmsg>("refresh = '0s'").is_err());
        assert!(toml::from_str::<Fedmsg>("refresh = '1s'").is_ok());
        let off = toml::from_str::<Deduplication>("window = '0s'").unwrap();
        assert!(off.window.is_zero());
    }
}
