//! The configuration: a TOML file, overridden by flags.
//!
//! Owns the keys and their defaults. Every key is optional; an unknown one is an error that names
//! it with its line. Relative paths are taken from where the daemon is started.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// What an operator can set.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How many deliveries are worked at a time.
    pub workers: u32,
    /// Where components and their manifests are.
    pub tasks: PathBuf,
    /// Where playbooks and their manifests are.
    pub playbooks: PathBuf,
    /// Where the journal, the embedded queue and the folders of runs are. Made if missing.
    pub state: PathBuf,
    /// Where `/livez`, `/readyz`, `/metrics` and `/status` are served.
    pub listen: SocketAddr,
    /// RabbitMQ, if the queue is there and not in the state directory.
    pub amqp_url: Option<String>,
    /// How many deliveries RabbitMQ hands a worker in advance.
    pub prefetch: u16,
    /// How long running tasks may go on after SIGTERM.
    #[serde(deserialize_with = "duration")]
    pub grace: Duration,
    pub fedmsg: Fedmsg,
    pub playbook: Playbook,
}

/// The fedmsg source.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fedmsg {
    /// ZeroMQ endpoints of publishers, for example `tcp://127.0.0.1:4001`.
    pub endpoints: Vec<String>,
    /// Topic prefixes to subscribe to, compared byte by byte as ZeroMQ does. Default: everything.
    pub topics: Vec<String>,
    /// How signatures are checked.
    pub verify: Verify,
}

/// How signatures are checked.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Verify {
    /// Only signed messages are taken. This version cannot check signatures yet, so a source that
    /// asks for it is refused at start.
    #[default]
    Required,
    /// Every message is taken as it is.
    Off,
}

/// How playbooks are started.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Playbook {
    /// `loopabull-launch`. Default: beside the daemon's own executable.
    pub launcher: Option<PathBuf>,
    /// `ansible-playbook`. Default: found on `PATH` at start.
    pub ansible_playbook: Option<PathBuf>,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration `{path}`")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot use the configuration `{path}`: {reason}")]
    Parse { path: PathBuf, reason: String },
    #[error("fedmsg endpoints need signatures checked, which this version cannot do")]
    Unverified,
    #[error(
        "`--role` divides the road over several daemons, which the embedded queue cannot serve"
    )]
    RoleWithoutBroker,
    #[error("`{key}` is {value}, it must be 1 to 1000")]
    Range { key: &'static str, value: u32 },
}

impl ConfigError {
    /// Returns what the operator can do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unverified => Some(
                "on a bus where everyone may start your tasks, say so: `--unsigned`, or \
                 `verify = \"off\"` under `[fedmsg]`",
            ),
            Self::RoleWithoutBroker => Some("put the queue into a RabbitMQ with `--amqp-url`"),
            _ => None,
        }
    }
}

impl Config {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        toml::from_str(&text).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            reason: error.to_string().trim_end().to_owned(),
        })
    }

    /// Checks what no single key can say.
    pub fn validate(&self) -> Result<(), ConfigError> {
        // AMQP takes a prefetch of 0 for "without limit".
        for (key, value) in [("workers", self.workers), ("prefetch", self.prefetch.into())] {
            if !(1..=1000).contains(&value) {
                return Err(ConfigError::Range { key, value });
            }
        }
        if !self.fedmsg.endpoints.is_empty() && self.fedmsg.verify != Verify::Off {
            return Err(ConfigError::Unverified);
        }
        Ok(())
    }

    /// Returns where the queue is.
    pub fn queue(&self) -> loopabull_queue::Config {
        match &self.amqp_url {
            Some(url) => loopabull_queue::Config::Amqp {
                url: url.clone(),
                name: loopabull_queue::Queue::DEFAULT_NAME.to_owned(),
                prefetch: self.prefetch,
            },
            None => loopabull_queue::Config::Embedded { file: self.state.join("queue.db") },
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            workers: 5,
            tasks: "tasks".into(),
            playbooks: "playbooks".into(),
            state: "state".into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 8480)),
            amqp_url: None,
            prefetch: 1,
            grace: Duration::from_secs(30),
            fedmsg: Fedmsg::default(),
            playbook: Playbook::default(),
        }
    }
}

impl Default for Fedmsg {
    fn default() -> Self {
        Self { endpoints: Vec::new(), topics: vec![String::new()], verify: Verify::default() }
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_without_verification_has_to_be_asked_for() {
        let mut config = Config::default();
        config.fedmsg.endpoints.push("tcp://127.0.0.1:4001".into());
        assert!(matches!(config.validate(), Err(ConfigError::Unverified)));
        config.fedmsg.verify = Verify::Off;
        assert!(config.validate().is_ok());
    }

    #[test]
    fn an_unknown_key_is_named_with_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loopabull.toml");
        std::fs::write(&path, "[fedmsg]\nendpoint = 'x'").unwrap();
        let error = Config::read(&path).unwrap_err().to_string();
        assert!(error.contains("loopabull.toml") && error.contains("`endpoint`"), "{error}");
    }
}
