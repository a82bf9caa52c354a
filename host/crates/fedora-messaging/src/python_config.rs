//! The configuration file of the Python package fedora-messaging, `/etc/fedora-messaging/config.toml`.
//!
//! The file has the same meaning as in `fedora_messaging/config.py` of version 3.9.1:
//! - If a key is in the file, its value replaces the whole default value.
//! - Keys of the first level may be in upper case.
//! - Unknown keys are refused.
//!
//! The settings for callbacks, logging, publishing and exchanges are accepted and not used. A Python consumer
//! does not declare exchanges either.
//!
//! Some files are refused although the Python package accepts them, because the package later fails or loses
//! messages: a value of the wrong type, a binding to a queue that is not configured, no queue at all, an
//! unlimited prefetch.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use loopabull_amqp::Argument;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::config::{Binding, BusConfig, BusQueue};

const USED: &[&str] = &[
    "amqp_url",
    "bindings",
    "client_properties",
    "monitoring",
    "passive_declares",
    "qos",
    "queues",
    "tls",
];
const UNUSED: &[&str] = &[
    "callback",
    "consumer_config",
    "exchanges",
    "log_config",
    "publish_exchange",
    "publish_priority",
    "topic_prefix",
];
/// Client properties that identify the Python package, each with a text. A file may set such a property only
/// to a value that begins with the text.
const RESERVED: &[(&str, &str)] = &[
    ("product", "Fedora Messaging with Pika"),
    ("information", "https://fedora-messaging.readthedocs.io/en/stable/"),
    ("version", "fedora_messaging-"),
];
/// The parameters that pika accepts after the `?` of a URL.
const URL_PARAMETERS: &[&str] = &[
    "blocked_connection_timeout",
    "channel_max",
    "client_properties",
    "connection_attempts",
    "frame_max",
    "heartbeat",
    "locale",
    "retry_delay",
    "socket_timeout",
    "ssl_options",
    "stack_timeout",
    "tcp_options",
];

/// The reason why a configuration file of the Python package cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PythonConfigError {
    #[error("invalid TOML in `{file}`, line {line}: {reason}")]
    Syntax { file: PathBuf, line: usize, reason: String },
    #[error("cannot use the key `{key}` in `{file}`: {reason}")]
    Key { file: PathBuf, key: String, reason: String },
}

/// A configuration file while it is being read.
struct File<'a> {
    path: &'a Path,
    keys: Table,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileQueue {
    durable: bool,
    auto_delete: bool,
    exclusive: bool,
    arguments: BTreeMap<String, Argument>,
    passive: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileBinding {
    #[serde(default)]
    queue: String,
    exchange: String,
    routing_keys: Vec<String>,
    #[serde(default)]
    arguments: BTreeMap<String, Argument>,
}

/// The table `qos`. A missing key gets its default value. The Python package instead fails if one of the keys
/// is missing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileQos {
    #[serde(default)]
    prefetch_size: u32,
    #[serde(default = "ten")]
    prefetch_count: u16,
}

impl BusConfig {
    /// Reads the text of a configuration file of the Python package. Returns one bus for each queue in the
    /// file, because a Python consumer consumes all of them. `path` appears in errors.
    pub fn from_python_config(text: &str, path: &Path) -> Result<Vec<Self>, PythonConfigError> {
        let file = File::parse(text, path)?;
        file.check_unused()?;
        let default = Self::default();
        let amqp_url = file.read("amqp_url")?.unwrap_or(default.amqp_url);
        file.check_url(&amqp_url)?;
        let passive = file.read("passive_declares")?.unwrap_or(false);
        let common = Self {
            amqp_url,
            tls: file.read("tls")?.unwrap_or_default(),
            client_properties: file.client_properties()?,
            passive_declares: passive,
            queue: BusQueue::default(),
            bindings: Vec::new(),
            prefetch: file.prefetch()?,
        };
        let queues = file.queues()?;
        let bindings = file.bindings(&queues)?;
        let bus = |(name, queue): (String, FileQueue)| {
            let bindings = bindings.iter().filter(|binding| binding.queue == name);
            let bindings = bindings.map(|binding| Binding {
                exchange: binding.exchange.clone(),
                routing_keys: binding.routing_keys.clone(),
                arguments: binding.arguments.clone(),
            });
            Self {
                passive_declares: queue.passive.unwrap_or(passive),
                bindings: bindings.collect(),
                queue: BusQueue {
                    name,
                    durable: queue.durable,
                    auto_delete: queue.auto_delete,
                    exclusive: queue.exclusive,
                    arguments: queue.arguments,
                },
                ..common.clone()
            }
        };
        Ok(queues.into_iter().map(bus).collect())
    }
}

impl<'a> File<'a> {
    fn parse(text: &str, path: &'a Path) -> Result<Self, PythonConfigError> {
        let parsed: Table = text.parse().map_err(|error: toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            PythonConfigError::Syntax {
                file: path.to_owned(),
                line: before.matches('\n').count() + 1,
                reason: error.message().to_owned(),
            }
        })?;
        let mut file = Self { path, keys: Table::new() };
        for (key, value) in parsed {
            if file.keys.insert(key.to_lowercase(), value).is_some() {
                return Err(file.error(&key, "the key is set twice, in upper and lower case"));
            }
        }
        Ok(file)
    }

    /// Refuses unknown keys. Also checks the table `monitoring`, which the Python package checks and we do
    /// not use.
    fn check_unused(&self) -> Result<(), PythonConfigError> {
        let is_known =
            |key: &&String| USED.contains(&key.as_str()) || UNUSED.contains(&key.as_str());
        if let Some(key) = self.keys.keys().find(|key| !is_known(key)) {
            return Err(self.error(key, "unknown key"));
        }
        let monitoring: Table = self.read("monitoring")?.unwrap_or_default();
        if !monitoring.is_empty() && !monitoring.contains_key("port") {
            return Err(self.error("monitoring", "missing field `port`"));
        }
        Ok(())
    }

    fn check_url(&self, url: &str) -> Result<(), PythonConfigError> {
        let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters);
        let names = parameters.split('&').filter_map(|pair| Some(pair.split_once('=')?.0));
        match names.into_iter().find(|name| !URL_PARAMETERS.contains(name)) {
            Some(name) => Err(self.error("amqp_url", format!("unknown parameter `{name}`"))),
            None => Ok(()),
        }
    }

    fn client_properties(&self) -> Result<BTreeMap<String, String>, PythonConfigError> {
        let given: BTreeMap<String, Argument> = self.read("client_properties")?.unwrap_or_default();
        let mut properties = BTreeMap::new();
        for (name, value) in given {
            let key = format!("client_properties.{name}");
            let expected = "expected text, an integer, true, false, or a list of these";
            let value = property(&value).ok_or_else(|| self.error(&key, expected))?;
            match RESERVED.iter().find(|(reserved, _)| *reserved == name) {
                Some((_, original)) if value.starts_with(original) => (),
                Some(_) => {
                    return Err(self.error(&key, "the Python package reserves this property"));
                }
                None => drop(properties.insert(name, value)),
            }
        }
        Ok(properties)
    }

    fn prefetch(&self) -> Result<NonZeroU16, PythonConfigError> {
        let qos = self.read("qos")?.unwrap_or(FileQos { prefetch_size: 0, prefetch_count: ten() });
        if qos.prefetch_size != 0 {
            let reason = "RabbitMQ has no prefetch limit in bytes; remove the key, or set it to 0";
            return Err(self.error("qos.prefetch_size", reason));
        }
        let unlimited =
            "0 means no limit, and memory use would be unlimited; set a positive number";
        NonZeroU16::new(qos.prefetch_count)
            .ok_or_else(|| self.error("qos.prefetch_count", unlimited))
    }

    fn queues(&self) -> Result<BTreeMap<String, FileQueue>, PythonConfigError> {
        let BusQueue { name, durable, auto_delete, exclusive, arguments } = BusQueue::default();
        let Some(given) = self.read::<BTreeMap<String, Value>>("queues")? else {
            let queue = FileQueue { durable, auto_delete, exclusive, arguments, passive: None };
            return Ok(BTreeMap::from([(name, queue)]));
        };
        if given.is_empty() {
            return Err(self.error("queues", "the table contains no queue"));
        }
        let read = |(name, queue)| {
            let queue = self.convert(&format!("queues.{name}"), queue)?;
            Ok((name, queue))
        };
        given.into_iter().map(read).collect()
    }

    fn bindings(
        &self,
        queues: &BTreeMap<String, FileQueue>,
    ) -> Result<Vec<FileBinding>, PythonConfigError> {
        let Some(given) = self.read::<Vec<Value>>("bindings")? else {
            let Binding { exchange, routing_keys, arguments } = Binding::default();
            let queue = String::new();
            return Ok(vec![FileBinding { queue, exchange, routing_keys, arguments }]);
        };
        let mut bindings = Vec::new();
        for (number, binding) in given.into_iter().enumerate() {
            let key = format!("bindings[{number}]");
            let binding: FileBinding = self.convert(&key, binding)?;
            if !queues.contains_key(&binding.queue) {
                let reason = format!("there is no queue `{}`", binding.queue);
                return Err(self.error(&format!("{key}.queue"), reason));
            }
            bindings.push(binding);
        }
        Ok(bindings)
    }

    fn read<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, PythonConfigError> {
        let value = self.keys.get(key).cloned();
        value.map(|value| self.convert(key, value)).transpose()
    }

    fn convert<T: DeserializeOwned>(
        &self,
        key: &str,
        value: Value,
    ) -> Result<T, PythonConfigError> {
        value.try_into().map_err(|error: toml::de::Error| self.error(key, error.message()))
    }

    fn error(&self, key: &str, reason: impl Into<String>) -> PythonConfigError {
        PythonConfigError::Key {
            file: self.path.to_owned(),
            key: key.to_owned(),
            reason: reason.into(),
        }
    }
}

/// Returns a client property as text. The items of a list are separated by commas, as in
/// `app_contacts_email` of the file that fedora-messaging installs for Fedora's broker.
fn property(value: &Argument) -> Option<String> {
    Some(match value {
        Argument::Text(text) => text.clone(),
        Argument::Boolean(value) => value.to_string(),
        Argument::Integer(value) => value.to_string(),
        Argument::List(items) => items.iter().map(property).collect::<Option<Vec<_>>>()?.join(", "),
        Argument::Table(_) => return None,
    })
}

fn ten() -> u16 {
    10
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_refused(text: &str, expected: &str) {
        let error = BusConfig::from_python_config(text, Path::new("/etc/c.toml")).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn errors_name_the_file_and_the_key() {
        check_refused(
            "a =",
            "invalid TOML in `/etc/c.toml`, line 1: string values must be quoted, expected literal string",
        );
        check_refused(
            "amqp_uri = ''",
            "cannot use the key `amqp_uri` in `/etc/c.toml`: unknown key",
        );
        check_refused(
            "[queues.q]\ndurable = true",
            "cannot use the key `queues.q` in `/etc/c.toml`: missing field `auto_delete`",
        );
        check_refused(
            "[[bindings]]\nexchange = 'e'\nrouting_keys = 'a'",
            "cannot use the key `bindings[0]` in `/etc/c.toml`: invalid type: string \"a\", expected a sequence",
        );
    }

    /// As in `/etc/fedora-messaging/fedora.toml` of fedora-messaging 3.9.
    #[test]
    fn a_client_property_may_be_a_list() {
        let text = "[client_properties]\napp = 'Example'\n\
                    app_contacts_email = ['a@example.org', 'b@example.org']\n";
        let buses = BusConfig::from_python_config(text, Path::new("/etc/c.toml")).unwrap();
        let email = &buses[0].client_properties["app_contacts_email"];
        assert_eq!(email, "a@example.org, b@example.org");
        check_refused(
            "[client_properties]\napp = { a = 1 }",
            "cannot use the key `client_properties.app` in `/etc/c.toml`: expected text, an integer, true, \
             false, or a list of these",
        );
    }

    #[test]
    fn settings_that_would_lose_messages_are_refused() {
        check_refused(
            "[[bindings]]\nqueue = 'q'\nexchange = 'e'\nrouting_keys = []",
            "cannot use the key `bindings[0].queue` in `/etc/c.toml`: there is no queue `q`",
        );
        check_refused(
            "[queues]",
            "cannot use the key `queues` in `/etc/c.toml`: the table contains no queue",
        );
    }
}
