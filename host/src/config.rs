//! The configuration: a TOML file, overridden by flags.
//!
//! Owns the keys and their defaults. Every key is optional. An unknown key is an error that names the
//! key and its line. Relative paths are relative to the working directory of the daemon.

mod error;
mod ingest;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use loopabull_egress::{EgressLimits, TlsRoots, TlsRootsError};
use loopabull_fedora_messaging::BusConfig;
use loopabull_model::{Ceiling, QueueName, Start, Task};
use loopabull_playbook::Settings;
use loopabull_queue::{Backend, QueueConfig, RabbitMqConfig};
use loopabull_wasm::{EgressSetup, Setup};
use serde::Deserialize;

pub use crate::config::error::ConfigError;
pub use crate::config::ingest::{Datagrepper, Deduplication, Endpoint, Fedmsg, Verify};

/// The settings of an operator.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The number of workers of the queue `workers`.
    pub workers: u32,
    /// The named queues. A queue that only a manifest names has one worker.
    pub queues: BTreeMap<QueueName, NamedQueue>,
    /// The directory of components and their manifests.
    pub tasks: PathBuf,
    /// The directory of playbooks and their manifests.
    pub playbooks: PathBuf,
    /// The directory of the journal, the embedded queue and the run directories. Created if missing.
    pub state: PathBuf,
    /// The address that serves `/livez`, `/readyz`, `/metrics` and `/status`.
    pub listen: SocketAddr,
    /// The URL of RabbitMQ. Default: the queue is embedded, in the state directory.
    pub amqp_url: Option<String>,
    /// The prefetch of each worker's consumer on RabbitMQ.
    pub prefetch: u16,
    /// The HTTP API of RabbitMQ's management plugin, `http://user:password@host:15672`. It is used to
    /// read acknowledgement timeouts.
    pub management_url: Option<String>,
    /// The value of `consumer_timeout` in rabbitmq.conf. Default: that of the broker's version.
    #[serde(with = "humantime_serde")]
    pub consumer_timeout: Option<Duration>,
    /// Starts even if tasks may run longer than the broker's acknowledgement timeout.
    pub ignore_consumer_timeout: bool,
    /// How long runs in progress may take to end after SIGTERM.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
    pub fedmsg: Fedmsg,
    pub deduplication: Deduplication,
    /// The fedora-messaging bus.
    pub fedora_messaging: Option<BusConfig>,
    /// A fedora-messaging configuration file whose queues are consumed.
    pub fedora_messaging_config: Option<PathBuf>,
    /// The archive from which missed messages are fetched. Default: none.
    pub datagrepper: Option<Datagrepper>,
    pub playbook: Playbook,
    pub http: Http,
    /// The bus on which messages of tasks are published, in addition to our own queues. Default: none.
    pub publish: Option<Publish>,
    /// The maximum that a manifest may grant.
    pub ceiling: Ceiling,
    /// The treatment of messages whose task exists but cannot be loaded.
    pub refused_tasks: RefusedTasks,
}

/// The treatment of messages whose task exists but cannot be loaded.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum RefusedTasks {
    /// They wait in order until the task can be loaded.
    #[default]
    Wait,
    /// They are dead-lettered with the reason.
    DeadLetter,
}

/// The part of a message's path that a daemon serves.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Role {
    /// Receives messages and processes them.
    #[default]
    All,
    /// Only receives messages.
    Ingest,
    /// Only processes messages of the queue.
    Work,
}

/// A queue other than `workers`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NamedQueue {
    /// The number of its workers. With one worker, processing is strictly serial on this host.
    pub workers: u32,
    /// Serial over all hosts: one worker consumes the queue, and another takes over when it is gone.
    pub exclusive_order: bool,
}

/// A queue with its workers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StaffedQueue {
    pub config: QueueConfig,
    pub workers: u32,
}

/// The settings of playbooks.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Playbook {
    /// The executable `loopabull-launch`. Default: the one beside the daemon's own executable.
    pub launcher: Option<PathBuf>,
    /// The executable `ansible-playbook`. Default: found on `PATH` at start.
    pub ansible_playbook: Option<PathBuf>,
    /// The user that runs playbooks if the daemon is root: a name or `UID:GID`. Default: the daemon's
    /// own user, without its capabilities.
    pub user: Option<String>,
    /// Layers of the sandbox without which no playbook is run. `check` lists the layers.
    pub require: Vec<String>,
    /// The layers of the sandbox to leave out.
    pub without: Vec<String>,
    /// How Ansible is started, `warm` or `cold`, unless a manifest sets it.
    pub start: Start,
    /// The maximum number of playbooks that a process with Ansible imported runs before it is replaced.
    /// Default: 200.
    pub controller_runs: Option<u32>,
    /// How long such a process may be idle before it is stopped. Default: 10 minutes.
    #[serde(with = "humantime_serde")]
    pub controller_idle: Option<Duration>,
}

/// The bus on which messages of tasks are published in fedora-messaging's format.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// `amqp://user:password@host:port/vhost`, or `amqps://…`.
    pub amqp_url: String,
    /// An existing topic exchange, for example `amq.topic`.
    pub exchange: String,
}

/// The settings of HTTP requests by components.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// CA certificates (PEM) that are trusted in addition to those of the system.
    pub ca_file: Option<PathBuf>,
}

impl Config {
    /// Reads a configuration file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        toml::from_str(&text).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            reason: error.to_string().trim_end().to_owned(),
        })
    }

    /// Checks rules that involve several keys, and ranges.
    pub fn validate(&self) -> Result<(), ConfigError> {
        // In AMQP, a prefetch of 0 means no limit.
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
        // Playbooks can read their own directory, so it must not contain the daemon's state.
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

    /// Returns the fedora-messaging buses to consume, including those of fedora-messaging's own
    /// configuration file.
    ///
    /// # Errors
    ///
    /// If that file cannot be read or is invalid.
    pub fn buses(&self) -> Result<Vec<BusConfig>, ConfigError> {
        let mut buses: Vec<_> = self.fedora_messaging.iter().cloned().collect();
        if let Some(path) = &self.fedora_messaging_config {
            let text = std::fs::read_to_string(path)
                .map_err(|source| ConfigError::Read { path: path.clone(), source })?;
            buses.extend(BusConfig::from_python_config(&text, path)?);
        }
        Ok(buses)
    }

    /// Returns all queues of the configuration and of manifests with their workers, `workers` first.
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

    /// Returns the settings of components, for at most `instances` at a time.
    pub fn components(&self, instances: u32) -> Result<Setup, TlsRootsError> {
        let egress = EgressSetup {
            limits: EgressLimits::default(),
            tls_roots: TlsRoots::load(self.http.ca_file.as_deref())?,
        };
        Ok(Setup { instances, cache: self.state.join("components"), egress })
    }

    /// Returns the settings of playbooks, whose run directories are in the folder `runs` of the state
    /// directory.
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

    /// Returns the location and the names of the queues.
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
    fn a_queue_with_exclusive_order_has_at_most_one_worker() {
        let config: Config =
            toml::from_str("[queues.a]\nworkers = 2\nexclusive_order = true").unwrap();
        assert!(matches!(config.validate(), Err(ConfigError::ExclusiveOrder { .. })));
    }

    #[test]
    fn a_source_without_signature_checks_needs_explicit_consent() {
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
    fn state_and_task_directories_do_not_overlap() {
        for (state, playbooks) in [("state", "."), ("playbooks/state", "playbooks"), ("x", "x")] {
            let (state, playbooks) = (state.into(), playbooks.into());
            let config = Config { state, playbooks, ..Config::default() };
            assert!(matches!(config.validate(), Err(ConfigError::Nested { key: "playbooks" })));
        }
    }

    #[test]
    fn an_unknown_key_is_reported_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loopabull.toml");
        std::fs::write(&path, "[fedmsg]\nendpoint = 'x'").unwrap();
        let error = Config::read(&path).unwrap_err().to_string();
        assert!(error.contains("loopabull.toml") && error.contains("`endpoint`"), "{error}");
    }
}
