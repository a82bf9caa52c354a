//! What an operator can set about where messages come from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use loopabull_model::{AddressBlock, Topic};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::config::duration::duration;

/// How often the files of a CA are read again, if nobody says.
const REFRESH: Duration = Duration::from_hours(1);

/// The fedmsg source.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fedmsg {
    /// ZeroMQ endpoints of publishers, for example `tcp://127.0.0.1:4001`, or each with its settings.
    pub endpoints: Vec<Endpoint>,
    /// Topic prefixes to subscribe to, compared byte by byte as ZeroMQ does. Default: everything.
    pub topics: Vec<String>,
    /// How signatures are checked.
    pub verify: Verify,
    /// The certificate of the CA that signs those of publishers, PEM. Of several the first counts.
    pub ca: Option<PathBuf>,
    /// The CA's list of revoked certificates. Default: none is revoked.
    pub crl: Option<PathBuf>,
    /// How often both files are read again. SIGHUP does it at once. Default: 1 hour.
    #[serde(deserialize_with = "positive")]
    pub refresh: Duration,
    /// Who may publish a topic: the common names of certificates. Whoever is trusted may publish a topic
    /// that is not named here.
    pub policy: BTreeMap<String, Vec<String>>,
    /// Refuses topics that the policy does not name (`routing_nitpicky` of fedmsg).
    pub nitpicky: bool,
    /// How many bytes of messages are kept on disk while the queue takes none. Default: 256 MiB.
    pub spool: ByteSize,
}

/// One publisher.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Endpoint {
    /// Where its socket is.
    pub address: String,
    /// How often it is asked whether it is there, and how long it may take to answer. None for one with
    /// libzmq before 4.2, which never answers.
    pub heartbeat: Option<Duration>,
    /// After how long without a message the connection is made anew. None where messages are rare.
    pub idle: Option<Duration>,
}

/// The same as a table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EndpointTable {
    address: String,
    #[serde(default = "heartbeat", deserialize_with = "period")]
    heartbeat: Option<Duration>,
    #[serde(default = "idle", deserialize_with = "period")]
    idle: Option<Duration>,
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

/// The archive of a bus.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Datagrepper {
    /// For example `https://apps.fedoraproject.org/datagrepper`.
    pub url: String,
    /// Addresses behind its name that are not public.
    #[serde(default)]
    pub addresses: Vec<AddressBlock>,
    /// Which topics are asked for. Default: those of all tasks, if none has a pattern; else all.
    #[serde(default)]
    pub topics: Vec<Topic>,
    /// How much earlier than needed is asked for: clocks differ, and a dead connection is noticed late.
    /// Default: 2 minutes.
    #[serde(default = "overlap", deserialize_with = "duration")]
    pub overlap: Duration,
    /// How many pages of 100 messages are asked for in a row; then it rests for a minute. Default: 100.
    #[serde(default = "pages")]
    pub pages: u32,
}

fn overlap() -> Duration {
    Duration::from_mins(2)
}

fn pages() -> u32 {
    100
}

/// Which messages are recognised that come twice.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Deduplication {
    /// How long one is known. Nought switches it off. Default: 1 day.
    #[serde(deserialize_with = "duration")]
    pub window: Duration,
    /// How many are known at the most, one for each message and task. Default: 200,000.
    pub messages: usize,
}

impl Default for Deduplication {
    fn default() -> Self {
        Self { window: Duration::from_hours(24), messages: 200_000 }
    }
}

/// How signatures are checked.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Verify {
    /// Only messages are taken whose signature is good.
    #[default]
    Required,
    /// Every message is taken as it is.
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
            refresh: REFRESH,
            policy: BTreeMap::new(),
            nitpicky: false,
            spool: ByteSize::mib(256),
        }
    }
}

/// A duration, or `off`.
fn period<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text == "off" {
        return Ok(None);
    }
    let parsed = humantime::parse_duration(&text).map_err(serde::de::Error::custom)?;
    if parsed.is_zero() {
        return Err(serde::de::Error::custom("must be longer than 0 s, or `off`"));
    }
    Ok(Some(parsed))
}

fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let parsed = duration(deserializer)?;
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
    fn an_endpoint_is_an_address_or_a_table() {
        let table = "{ address = 'tcp://b:2', heartbeat = 'off', idle = '1h' }";
        let found = endpoints(&format!("'tcp://a:1', {table}")).unwrap();
        let idle = Some(Duration::from_secs(3600));
        let second = Endpoint { address: "tcp://b:2".into(), heartbeat: None, idle };
        assert_eq!(found, ["tcp://a:1".to_owned().into(), second]);
    }

    #[test]
    fn an_endpoint_that_is_neither_is_refused() {
        for text in ["1", "{ idle = 'off' }", "{ address = 'a', idle = 'never' }", "{ a = 1 }"] {
            assert!(endpoints(text).is_err(), "{text}");
        }
    }

    #[test]
    fn no_period_is_nothing() {
        let error = endpoints("{ address = 'a', idle = '0s' }").unwrap_err();
        assert!(error.contains("must be longer than 0 s, or `off`"), "{error}");
        assert!(toml::from_str::<Fedmsg>("refresh = '0s'").is_err());
        assert!(toml::from_str::<Fedmsg>("refresh = '1s'").is_ok());
    }
}
