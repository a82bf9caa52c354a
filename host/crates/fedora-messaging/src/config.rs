//! The settings of a bus: its broker, our queue on that broker, and the bindings of the queue.
//!
//! This module opens no connection. The module `python_config` reads the configuration file of the Python
//! package fedora-messaging into these settings.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use loopabull_amqp::{Argument, TlsFiles};
use serde::Deserialize;

/// The exchange that fedora-messaging uses by default.
const DEFAULT_EXCHANGE: &str = "amq.topic";

/// The settings of a bus. The defaults are those of the Python package fedora-messaging.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct BusConfig {
    /// Address of the broker: `amqp://user:password@host:port/vhost`, or `amqps://…`. The default vhost is
    /// `/`.
    pub amqp_url: String,
    /// Files for TLS, used only if the address begins with `amqps`.
    pub tls: TlsFiles,
    /// Client properties, which RabbitMQ's tools show with the connection. Most clients set `app`.
    pub client_properties: BTreeMap<String, String>,
    /// Whether the queue must exist already. Use this for a user who has no permission to create queues.
    pub passive_declares: bool,
    pub queue: BusQueue,
    /// Bindings of the queue, declared at each connection. Default: all messages of `amq.topic`.
    pub bindings: Vec<Binding>,
    /// Maximum number of unacknowledged deliveries that the broker sends.
    pub prefetch: NonZeroU16,
}

/// Our queue on the broker.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct BusQueue {
    /// Name of the queue. If the name is empty, the broker chooses a new name at each connection, and
    /// messages published while we are not connected are lost. Fedora's public broker requires a UUID as the
    /// name.
    pub name: String,
    #[serde(default = "enabled")]
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
    /// Topic patterns: `*` matches one word, `#` any number of words.
    pub routing_keys: Vec<String>,
    #[serde(default)]
    pub arguments: BTreeMap<String, Argument>,
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
    /// Returns a queue whose name the broker chooses.
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
            exchange: DEFAULT_EXCHANGE.to_owned(),
            routing_keys: vec!["#".to_owned()],
            arguments: BTreeMap::new(),
        }
    }
}

impl BusQueue {
    /// Returns whether the queue keeps messages that are published while we are not connected.
    pub fn survives_disconnect(&self) -> bool {
        !self.name.is_empty() && !self.exclusive && !self.auto_delete
    }
}

fn enabled() -> bool {
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
    fn a_named_queue_is_durable_and_survives_a_disconnect() {
        let config: BusConfig = toml::from_str(
            "amqp_url = 'amqps://host/%2Fpublic_pubsub'\nprefetch = 25\n[queue]\nname = 'q'\n\
             arguments = { x-max-length = 5 }\n[[bindings]]\nexchange = 'e'\nrouting_keys = ['a.*']",
        )
        .unwrap();
        assert!(config.queue.survives_disconnect() && config.queue.durable);
        assert_eq!(config.queue.arguments["x-max-length"], Argument::Integer(5));
        assert_eq!((config.prefetch.get(), config.bindings.len()), (25, 1));
    }

    #[test]
    fn the_default_is_the_whole_exchange_through_a_queue_that_the_broker_names() {
        let config: BusConfig = toml::from_str("").unwrap();
        assert_eq!(config, BusConfig::default());
        assert!(!config.queue.survives_disconnect());
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
