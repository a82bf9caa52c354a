//! The configuration: a TOML file, overridden by flags.
//!
//! Owns the keys and their defaults. Every key is optional; an unknown one is an error that names
//! it with its line. Relative paths are taken from where the daemon is started.

mod ingest;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use loopabull_egress::{EgressLimits, Trust, TrustError};
use loopabull_fedora_messaging::{BusConfig, PythonConfigError};
use loopabull_model::{Ceiling, QueueName, Start, Task};
use loopabull_playbook::Settings;
use loopabull_queue::{Backend, QueueConfig, RabbitMqConfig};
use loopabull_wasm::{EgressSetup, Setup};
use serde::{Deserialize, Deserializer};

pub use crate::config::ingest::{Datagrepper, Deduplication, Endpoint, Fedmsg, Verify};

/// What an operator can set.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How many deliveries of the queue `workers` are worked at a time.
    pub workers: u32,
    /// The other queues. One that only a manifest names has one worker.
    pub queues: BTreeMap<QueueName, NamedQueue>,
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
    /// The HTTP API of RabbitMQ's management plugin, `http://user:password@host:15672`: asked for
    /// acknowledgement timeouts.
    pub management_url: Option<String>,
    /// What `consumer_timeout` in rabbitmq.conf is. Default: what the broker's version has.
    #[serde(deserialize_with = "some_duration")]
    pub consumer_timeout: Option<Duration>,
    /// Starts also if tasks may run longer than the broker waits for an acknowledgement.
    pub ignore_consumer_timeout: bool,
    /// How long running tasks may go on after SIGTERM.
    #[serde(deserialize_with = "duration")]
    pub grace: Duration,
    pub fedmsg: Fedmsg,
    pub deduplication: Deduplication,
    /// The bus of fedora-messaging.
    pub fedora_messaging: Option<BusConfig>,
    /// A configuration file of fedora-messaging itself, whose queues are consumed.
    pub fedora_messaging_config: Option<PathBuf>,
    /// Where what was missed is asked for. Default: nowhere.
    pub datagrepper: Option<Datagrepper>,
    pub playbook: Playbook,
    pub http: Http,
    /// Where what tasks send goes beside our own queues; nowhere if it is not set.
    pub publish: Option<Publish>,
    /// The most that a manifest may grant.
    pub ceiling: Ceiling,
    /// What becomes of messages whose task is there and cannot be loaded.
    pub refused_tasks: RefusedTasks,
}

/// What becomes of messages whose task is there and cannot be loaded.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum RefusedTasks {
    /// They wait in their order until it can.
    #[default]
    Wait,
    /// They are set aside, with the reason.
    DeadLetter,
}

/// What the daemon does of the road of a message.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Role {
    /// Takes messages in and works them.
    #[default]
    All,
    /// Only takes messages in.
    Ingest,
    /// Only works them.
    Work,
}

/// One queue beside `workers`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NamedQueue {
    /// How many of its deliveries are worked at a time. One is strictly serial on this host.
    pub workers: u32,
    /// Serial over all hosts: one worker has the queue, another takes over when that is gone.
    pub exclusive_order: bool,
}

/// A queue with its workers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StaffedQueue {
    pub config: QueueConfig,
    pub workers: u32,
}

/// How playbooks are started.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Playbook {
    /// `loopabull-launch`. Default: beside the daemon's own executable.
    pub launcher: Option<PathBuf>,
    /// `ansible-playbook`. Default: found on `PATH` at start.
    pub ansible_playbook: Option<PathBuf>,
    /// Who playbooks run as, by name or as `UID:GID`, if the daemon is root. Default: the daemon's own
    /// user, without its capabilities.
    pub user: Option<String>,
    /// Layers of the confinement without which no playbook is run; `check` shows them.
    pub require: Vec<String>,
    /// Layers of the confinement that are left out.
    pub without: Vec<String>,
    /// How Ansible is started, if a manifest does not say: `warm` or `cold`.
    pub start: Start,
    /// How many playbooks one process that has Ansible imported runs before another takes its place.
    /// Default: 200.
    pub controller_runs: Option<u32>,
    /// How long such a process waits for the next playbook before it is ended. Default: 10 minutes.
    #[serde(deserialize_with = "some_duration")]
    pub controller_idle: Option<Duration>,
}

/// The bus on which what tasks send is published, in the form of fedora-messaging.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// `amqp://user:password@host:port/vhost`, or `amqps://…`.
    pub amqp_url: String,
    /// A topic exchange that is there, for example `amq.topic`.
    pub exchange: String,
}

/// How components call out over HTTP.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Certificates (PEM) that are believed beside those of the system.
    pub ca_file: Option<PathBuf>,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration `{path}`")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot use the configuration `{path}`: {reason}")]
    Parse { path: PathBuf, reason: String },
    #[error(transparent)]
    FedoraMessaging(#[from] PythonConfigError),
    #[error("signatures of fedmsg are to be checked, and no CA is named")]
    Unverified,
    #[error(
        "`--role` divides the road over several daemons, which the embedded queue cannot serve"
    )]
    RoleWithoutBroker,
    #[error("`{key}` is {value}, it must be 1 to 1000")]
    Range { key: String, value: u32 },
    #[error("queue `{queue}` has an exclusive order and {workers} workers")]
    ExclusiveOrder { queue: QueueName, workers: u32 },
    #[error("the directories `state` and `{key}` lie in one another")]
    Nested { key: &'static str },
    #[error("queue `workers` has its workers by the key `workers`, not under `[queues]`")]
    DefaultQueue,
}

impl ConfigError {
    /// Returns what the operator can do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unverified => Some(
                "name its certificate with `--ca FILE`, or `ca` under `[fedmsg]`; on a bus where \
                 everyone may start your tasks say so: `--unsigned`, or `verify = \"off\"`",
            ),
            Self::RoleWithoutBroker => Some("put the queue into a RabbitMQ with `--amqp-url`"),
            Self::Nested { .. } => {
                Some("keep them apart: what a playbook may read must not be what the daemon keeps")
            }
            Self::ExclusiveOrder { .. } => Some("give it one worker: only one can have it"),
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
        let own = [("workers", self.workers), ("prefetch", self.prefetch.into())];
        let own = own.map(|(key, value)| (key.to_owned(), value));
        let named =
            self.queues.iter().map(|(n, queue)| (format!("queues.{n}.workers"), queue.workers));
        for (key, value) in own.into_iter().chain(named) {
            if !(1..=1000).contains(&value) {
                return Err(ConfigError::Range { key, value });
            }
        }
        if self.queues.contains_key(&QueueName::default()) {
            return Err(ConfigError::DefaultQueue);
        }
        let overstaffed = |queue: &NamedQueue| queue.exclusive_order && queue.workers > 1;
        if let Some((queue, named)) = self.queues.iter().find(|(_, queue)| overstaffed(queue)) {
            let (queue, workers) = (queue.clone(), named.workers);
            return Err(ConfigError::ExclusiveOrder { queue, workers });
        }
        // What a playbook reads must not be what the daemon keeps.
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let state = absolute(&self.state);
        for (key, folder) in [("tasks", &self.tasks), ("playbooks", &self.playbooks)] {
            let folder = absolute(folder);
            if state.starts_with(&folder) || folder.starts_with(&state) {
                return Err(ConfigError::Nested { key });
            }
        }
        let is_checked = self.fedmsg.verify == Verify::Required;
        if !self.fedmsg.endpoints.is_empty() && is_checked && self.fedmsg.ca.is_none() {
            return Err(ConfigError::Unverified);
        }
        Ok(())
    }

    /// Returns the buses of fedora-messaging that are to be consumed, those of its own file too.
    ///
    /// # Errors
    ///
    /// If that file cannot be read or used.
    pub fn buses(&self) -> Result<Vec<BusConfig>, ConfigError> {
        let mut buses: Vec<_> = self.fedora_messaging.iter().cloned().collect();
        if let Some(path) = &self.fedora_messaging_config {
            let text = std::fs::read_to_string(path)
                .map_err(|source| ConfigError::Read { path: path.clone(), source })?;
            buses.extend(BusConfig::from_python_config(&text, path)?);
        }
        Ok(buses)
    }

    /// Returns all queues with their workers, `workers` first: those of the configuration, and those
    /// that only manifests name.
    pub fn staffed_queues<'a>(
        &self,
        tasks: impl IntoIterator<Item = &'a Task>,
    ) -> Vec<StaffedQueue> {
        let mut named = self.queues.clone();
        let mut tasks_of = BTreeMap::<_, Vec<_>>::new();
        for task in tasks {
            let queue = &task.manifest.queue;
            named.entry(queue.clone()).or_default();
            tasks_of.entry(queue.clone()).or_default().push(task.name.clone());
        }
        named.remove(&QueueName::default());
        let mut new = |name: QueueName| QueueConfig {
            tasks: tasks_of.remove(&name).unwrap_or_default(),
            ..QueueConfig::new(name)
        };
        let first = StaffedQueue { config: new(QueueName::default()), workers: self.workers };
        let others = named.into_iter().map(|(name, queue)| StaffedQueue {
            config: QueueConfig { exclusive_order: queue.exclusive_order, ..new(name) },
            workers: queue.workers,
        });
        std::iter::once(first).chain(others).collect()
    }

    /// Returns how components are run, so many at a time.
    pub fn components(&self, instances: u32) -> Result<Setup, TrustError> {
        let egress = EgressSetup {
            limits: EgressLimits::default(),
            trust: Trust::load(self.http.ca_file.as_deref())?,
        };
        Ok(Setup { instances, cache: self.state.join("components"), egress })
    }

    /// Returns how playbooks are run, with their directories in the folder `runs` of the state directory.
    pub fn playbook_settings(&self, runs: &str) -> Settings {
        let named = self.queues.values().map(|queue| queue.workers);
        let playbook = self.playbook.clone();
        Settings {
            launcher: playbook.launcher,
            ansible_playbook: playbook.ansible_playbook,
            user: playbook.user,
            require: playbook.require,
            without: playbook.without,
            start: playbook.start,
            controller_runs: playbook.controller_runs,
            controller_idle: playbook.controller_idle,
            slots: named.chain([self.workers]).map(|workers| workers as usize).sum(),
            ..Settings::new(self.playbooks.clone(), self.state.clone(), runs)
        }
    }

    /// Returns where the queues are, and which.
    pub fn queues<'a>(&self, tasks: impl IntoIterator<Item = &'a Task>) -> loopabull_queue::Config {
        let backend = match &self.amqp_url {
            Some(url) => Backend::RabbitMq(RabbitMqConfig {
                url: url.clone(),
                prefetch: self.prefetch,
                management: self.management_url.clone(),
                ack_timeout: self.consumer_timeout,
            }),
            None => Backend::Embedded { file: self.state.join("queue.db") },
        };
        let queues = self.staffed_queues(tasks).into_iter().map(|queue| queue.config).collect();
        loopabull_queue::Config { backend, queues }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            workers: 5,
            queues: BTreeMap::new(),
            tasks: "tasks".into(),
            playbooks: "playbooks".into(),
            state: "state".into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 8480)),
            amqp_url: None,
            prefetch: 1,
            management_url: None,
            consumer_timeout: None,
            ignore_consumer_timeout: false,
            grace: Duration::from_secs(30),
            fedmsg: Fedmsg::default(),
            deduplication: Deduplication::default(),
            fedora_messaging: None,
            fedora_messaging_config: None,
            datagrepper: None,
            playbook: Playbook::default(),
            http: Http::default(),
            publish: None,
            ceiling: Ceiling::default(),
            refused_tasks: RefusedTasks::default(),
        }
    }
}

impl Default for NamedQueue {
    fn default() -> Self {
        Self { workers: 1, exclusive_order: false }
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(serde::de::Error::custom)
}

fn some_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_only_a_manifest_names_has_one_worker() {
        let config: Config = toml::from_str("[queues.fast]\nworkers = 3").unwrap();
        let task = |queue: &str| Task {
            name: queue.try_into().unwrap(),
            kind: loopabull_model::TaskKind::Playbook,
            manifest: loopabull_model::Manifest {
                queue: queue.try_into().unwrap(),
                ..Default::default()
            },
        };
        let tasks = [task("slow"), task("workers"), task("fast")];
        let queues = config.staffed_queues(&tasks);
        let found: Vec<_> =
            queues.iter().map(|queue| (queue.config.name.as_str(), queue.workers)).collect();
        assert_eq!(found, [("workers", 5), ("fast", 3), ("slow", 1)]);
    }

    #[test]
    fn an_exclusive_order_has_one_worker() {
        let config: Config =
            toml::from_str("[queues.a]\nworkers = 2\nexclusive_order = true").unwrap();
        assert!(matches!(config.validate(), Err(ConfigError::ExclusiveOrder { .. })));
    }

    #[test]
    fn a_source_without_verification_has_to_be_asked_for() {
        let mut config = Config::default();
        config.fedmsg.endpoints.push("tcp://127.0.0.1:4001".to_owned().into());
        assert!(matches!(config.validate(), Err(ConfigError::Unverified)));
        config.fedmsg.verify = Verify::Off;
        assert!(config.validate().is_ok());
        config.fedmsg.verify = Verify::Required;
        config.fedmsg.ca = Some("ca.crt".into());
        assert!(config.validate().is_ok());
    }

    #[test]
    fn state_and_tasks_lie_apart() {
        for (state, playbooks) in [("state", "."), ("playbooks/state", "playbooks"), ("x", "x")] {
            let (state, playbooks) = (state.into(), playbooks.into());
            let config = Config { state, playbooks, ..Config::default() };
            assert!(matches!(config.validate(), Err(ConfigError::Nested { key: "playbooks" })));
        }
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
