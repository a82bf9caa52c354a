//! The settings of a bus: where its broker is, which queue of it is ours, and what it is bound to.
//!
//! Knows nothing of connections. An existing file of the Python package is read into the same settings
//! by `fedora_file`.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::path::PathBuf;

use serde::Deserialize;

/// The exchange of fedora-messaging, unless another is named.
pub(super) const EXCHANGE: &str = "amq.topic";

/// A bus in the form of fedora-messaging. Defaults are those of the Python package.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct BusConfig {
    /// `amqp://user:password@host:port/vhost` or `amqps://…`. Without a vhost it is `/`.
    pub amqp_url: String,
    /// Used with `amqps` only.
    pub tls: TlsFiles,
    /// What the broker's own tools show of the connection; `app` is the usual one.
    pub client_properties: BTreeMap<String, String>,
    /// Finds the queue instead of making it, where the user must not make any.
    pub passive_declares: bool,
    pub queue: BusQueue,
    /// What the queue is bound to, at each connection. Everything of `amq.topic` if nobody says.
    pub bindings: Vec<Binding>,
    /// How many deliveries the broker sends before the first is acknowledged.
    pub prefetch: NonZeroU16,
}

/// Files in PEM form. They are read at each connection, so that what is renewed is used.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct TlsFiles {
    /// The only authorities that a broker's certificate may come from; those of the system without it.
    pub ca_cert: Option<PathBuf>,
    /// The key of `certfile`. With both, the certificate is who we are (AMQP's `EXTERNAL`), and user
    /// and password of the URL are not used.
    pub keyfile: Option<PathBuf>,
    pub certfile: Option<PathBuf>,
}

/// The queue on the broker.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct BusQueue {
    /// Empty for one that the broker names anew at each connection: what is published while we are
    /// not connected is then lost. Fedora's public broker wants a UUID.
    pub name: String,
    #[serde(default = "yes")]
    pub durable: bool,
    #[serde(default)]
    pub auto_delete: bool,
    #[serde(default)]
    pub exclusive: bool,
    #[serde(default)]
    pub arguments: BTreeMap<String, Argument>,
}

/// Bindings of the queue to one exchange.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    pub exchange: String,
    /// Topics, in which `*` is one word and `#` any number of them.
    pub routing_keys: Vec<String>,
    #[serde(default)]
    pub arguments: BTreeMap<String, Argument>,
}

/// An argument of a queue or a binding.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(untagged, expecting = "neither text, a whole number, true, false, a list nor a table")]
pub enum Argument {
    Boolean(bool),
    Integer(i64),
    Text(String),
    List(Vec<Argument>),
    Table(BTreeMap<String, Argument>),
}

impl Default for BusConfig {
    fn default() -> Self {
        Self {
            amqp_url: "amqp://".to_owned(),
            tls: TlsFiles::default(),
            client_properties: BTreeMap::new(),
            passive_declares: false,
            queue: BusQueue::default(),
            bindings: vec![Binding::default()],
            prefetch: NonZeroU16::new(10).expect("10 is not 0"),
        }
    }
}

impl Default for BusQueue {
    /// One that the broker names.
    fn default() -> Self {
        Self {
            name: String::new(),
            durable: false,
            auto_delete: true,
            exclusive: true,
            arguments: BTreeMap::new(),
        }
    }
}

impl Default for Binding {
    fn default() -> Self {
        Self {
            exchange: EXCHANGE.to_owned(),
            routing_keys: vec!["#".to_owned()],
            arguments: BTreeMap::new(),
        }
    }
}

impl BusQueue {
    /// Tells whether what is published while we are not connected waits in the queue.
    pub fn is_kept(&self) -> bool {
        !self.name.is_empty() && !self.exclusive && !self.auto_delete
    }
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_refused(text: &str, expected: &str) {
        let error = toml::from_str::<BusConfig>(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn a_named_queue_is_durable_and_kept() {
        let config: BusConfig = toml::from_str(
            "amqp_url = 'amqps://host/%2Fpublic_pubsub'\nprefetch = 25\n[queue]\nname = 'q'\n\
             arguments = { x-max-length = 5 }\n[[bindings]]\nexchange = 'e'\nrouting_keys = ['a.*']",
        )
        .unwrap();
        assert!(config.queue.is_kept() && config.queue.durable);
        assert_eq!(config.queue.arguments["x-max-length"], Argument::Integer(5));
        assert_eq!((config.prefetch.get(), config.bindings.len()), (25, 1));
    }

    #[test]
    fn nothing_said_is_the_whole_exchange_by_a_queue_that_the_broker_names() {
        let config: BusConfig = toml::from_str("").unwrap();
        assert_eq!(config, BusConfig::default());
        assert!(!config.queue.is_kept());
        assert_eq!(config.bindings, [Binding::default()]);
    }

    #[test]
    fn unknown_keys_and_an_unlimited_prefetch_are_refused() {
        check_refused("amqp_uri = 'x'", "unknown field `amqp_uri`");
        check_refused("[tls]\ncafile = 'x'", "unknown field `cafile`");
        check_refused("[queue]\nname = 'q'\nttl = 1", "unknown field `ttl`");
        check_refused("[[bindings]]\nexchange = 'e'", "missing field `routing_keys`");
        check_refused("prefetch = 0", "nonzero");
    }
}
