//! The configuration: the settings from a TOML file and from flags. A flag overrides the same
//! setting in the file.
//!
//! This module defines the keys of the file and their defaults, and checks their values. `cli`
//! applies the flags. Every top-level key is optional. An unknown key is an error that names the
//! key and its line. Relative paths are relative to the working directory of the daemon.

mod error;
mod ingest;
mod queues;
mod warnings;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use loopabull_egress::{EgressLimits, TlsRoots, TlsRootsError};
use loopabull_fedora_messaging::BusConfig;
use loopabull_model::{Ceiling, QueueName, Start, Task, escape_harmful};
use loopabull_playbook::Settings;
use loopabull_queue::{Backend, RabbitMqConfig};
use loopabull_wasm::{EgressSetup, Setup};
use serde::Deserialize;

use crate::tables;

pub use crate::config::error::ConfigError;
pub use crate::config::ingest::{Datagrepper, Deduplication, Endpoint, Fedmsg, Verify};
pub use crate::config::queues::{NamedQueue, StaffedQueue};
pub use crate::config::warnings::Warnings;

/// Default address of the operator's port.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8480);

/// Settings from the configuration file and the flags.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Number of workers for the default queue. The name of that queue is also `workers`.
    pub workers: u32,
    /// Named queues with their settings. A queue that is named only in a manifest has one worker.
    pub queues: BTreeMap<QueueName, NamedQueue>,
    /// Directory of components and their manifests.
    pub tasks: PathBuf,
    /// Directory of playbooks and their manifests.
    pub playbooks: PathBuf,
    /// Directories outside of these two to which links in them may lead. Playbooks may read them.
    pub linked_dirs: Vec<PathBuf>,
    /// State directory: the journal, the embedded queue and the run directories. The daemon creates
    /// the directory if it is missing.
    pub state: PathBuf,
    /// Address that serves the pages, `/api/v1`, `/livez`, `/readyz`, `/warnings` and `/metrics`.
    pub listen: SocketAddr,
    /// Host names under which `listen` may be addressed, besides IP addresses and `localhost`.
    pub allowed_hosts: Vec<String>,
    /// File with the token that a request needs. It must be set if `listen` can be reached from other machines.
    pub token_file: Option<PathBuf>,
    /// File with the token of operators, who may act and not only look. Default: nobody may act at the port.
    pub operate_token_file: Option<PathBuf>,
    /// URL of RabbitMQ. Default: no RabbitMQ; the queue is embedded in the state directory.
    pub amqp_url: Option<String>,
    /// Maximum number of messages of the default queue that one worker has received and not settled. The worker runs one of them; it
    /// records and settles others meanwhile. Default: 1 for a queue with playbooks. For a queue whose tasks are components, as many
    /// as take at most ten minutes, or half of `consumer_timeout` if that is shorter, when each takes its whole `timeout`; at most 32.
    pub prefetch: Option<u16>,
    /// URL of RabbitMQ's management API, `http://user:password@host:15672`. The daemon reads the
    /// acknowledgement timeouts there.
    pub management_url: Option<String>,
    /// Value of `consumer_timeout` in rabbitmq.conf. Default: RabbitMQ's default for the version of
    /// the broker.
    #[serde(with = "humantime_serde")]
    pub consumer_timeout: Option<Duration>,
    /// Whether the daemon starts even if a task may run longer than the broker's acknowledgement
    /// timeout.
    pub ignore_consumer_timeout: bool,
    /// Time between SIGTERM and the cancellation of runs that are still in progress.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
    pub fedmsg: Fedmsg,
    pub deduplication: Deduplication,
    pub journal: Journal,
    pub arrivals: Arrivals,
    pub warnings: Warnings,
    /// A fedora-messaging bus to consume.
    pub fedora_messaging: Option<BusConfig>,
    /// Path of a fedora-messaging configuration file. The queues in the file are consumed.
    pub fedora_messaging_config: Option<PathBuf>,
    /// Archive from which missed messages are fetched. Default: none.
    pub datagrepper: Option<Datagrepper>,
    pub playbook: Playbook,
    pub http: Http,
    /// Bus on which messages emitted by tasks are published, in addition to our own queues.
    /// Default: none.
    pub publish: Option<Publish>,
    /// Maximum grants and limits that a manifest may set.
    pub ceiling: Ceiling,
    /// Treatment of messages whose task exists but cannot be loaded.
    pub refused_tasks: RefusedTasks,
}

/// Treatment of messages whose task exists but cannot be loaded.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum RefusedTasks {
    /// The messages wait in order until the task can be loaded.
    #[default]
    Wait,
    /// The messages are dead-lettered, with the reason why the task cannot be loaded.
    DeadLetter,
}

/// The part of the work that a daemon does.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Role {
    /// Receives messages and processes them.
    #[default]
    All,
    /// Only receives messages.
    Ingest,
    /// Only processes messages from the queue.
    Work,
}

/// The notes of messages that arrived, whether or not they ran.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Arrivals {
    /// Number of arrivals that are kept, the newest ones. With 0, none is noted.
    pub keep: u64,
}

/// How long the runs of this host are kept. Runs that ended in the last hour are always kept.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Journal {
    /// Time for which successful runs are kept.
    #[serde(with = "humantime_serde")]
    pub keep: Duration,
    /// Time for which all other runs are kept.
    #[serde(with = "humantime_serde")]
    pub keep_failed: Duration,
    /// Size of the journal above which the oldest runs are deleted, successful ones first.
    pub max_size: ByteSize,
}

/// Settings of playbooks.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Playbook {
    /// Path of the executable `loopabull-launch`. Default: the file beside the daemon's own
    /// executable.
    pub launcher: Option<PathBuf>,
    /// Path of the executable `ansible-playbook`. Default: the first one on `PATH` at start.
    pub ansible_playbook: Option<PathBuf>,
    /// User that runs playbooks if the daemon is root: a name or `UID:GID`. Default: the daemon's
    /// own user, but without capabilities.
    pub user: Option<String>,
    /// Sandbox layers that are required. If a required layer is unavailable, no playbook is run.
    /// The command `check` lists the layers.
    pub require: Vec<String>,
    /// Sandbox layers that are not applied.
    pub without: Vec<String>,
    /// Way to start Ansible, `warm` or `cold`, for playbooks whose manifest does not set it.
    pub start: Start,
    /// Maximum number of playbooks that a warm Ansible process runs before it is replaced. Default:
    /// 200.
    pub controller_runs: Option<u32>,
    /// Time after which an idle warm Ansible process is stopped. Default: 10 minutes.
    #[serde(with = "humantime_serde")]
    pub controller_idle: Option<Duration>,
}

/// The bus on which messages emitted by tasks are published, in the format of fedora-messaging.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// URL of the broker: `amqp://user:password@host:port/vhost`, or `amqps://…`.
    pub amqp_url: String,
    /// Name of an existing topic exchange, for example `amq.topic`.
    pub exchange: String,
}

/// Settings of HTTP requests by components.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// File of CA certificates (PEM) that are trusted in addition to the CA certificates of the
    /// system.
    pub ca_file: Option<PathBuf>,
}

impl Config {
    /// Reads a configuration file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        toml::from_str(&text).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            reason: escape_harmful(without_secret(&text, &error).trim_end()),
        })
    }

    /// Checks the range of each value, and rules that involve several keys.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let is_name = |name: &&String| {
            name.parse::<http::uri::Authority>().is_ok_and(|authority| authority.host() == **name)
        };
        if let Some(name) = self.allowed_hosts.iter().find(|name| !is_name(name)) {
            return Err(ConfigError::AllowedHost { name: escape_harmful(name) });
        }
        if !self.listen.ip().is_loopback() && self.token_file.is_none() {
            return Err(ConfigError::NoToken { listen: self.listen });
        }
        // In AMQP, a prefetch of 0 means that there is no limit. So 0 is not allowed.
        let prefetch = |limit: Option<u16>| limit.map(u32::from);
        let own = [
            ("workers".to_owned(), Some(self.workers)),
            ("prefetch".to_owned(), prefetch(self.prefetch)),
        ];
        let named = self.queues.iter().flat_map(|(name, queue)| {
            [
                (format!("queues.{name}.workers"), Some(queue.workers)),
                (format!("queues.{name}.prefetch"), prefetch(queue.prefetch)),
            ]
        });
        for (key, value) in own.into_iter().chain(named) {
            if let Some(value) = value.filter(|value| !(1..=1000).contains(value)) {
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
        // Playbooks can read their own directory. If the state directory overlapped it, playbooks
        // could read the daemon's state.
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let state = absolute(&self.state);
        let linked = self.linked_dirs.iter().map(|folder| ("linked_dirs", folder));
        let own = [("tasks", &self.tasks), ("playbooks", &self.playbooks)];
        for (key, folder) in own.into_iter().chain(linked) {
            let folder = absolute(folder);
            if state.starts_with(&folder) || folder.starts_with(&state) {
                return Err(ConfigError::Nested { key });
            }
        }
        for endpoint in &self.fedmsg.endpoints {
            if let Some(reason) = endpoint.problem() {
                let address = escape_harmful(&endpoint.address);
                return Err(ConfigError::Endpoint { address, reason });
            }
        }
        let is_checked = self.fedmsg.verify == Verify::Required;
        if !self.fedmsg.endpoints.is_empty() && is_checked && self.fedmsg.ca.is_none() {
            return Err(ConfigError::Unverified);
        }
        Ok(())
    }

    /// Returns the fedora-messaging buses to consume: the bus under `[fedora_messaging]`, and the
    /// buses in fedora-messaging's own configuration file.
    ///
    /// # Errors
    ///
    /// If fedora-messaging's configuration file cannot be read or is invalid.
    pub fn buses(&self) -> Result<Vec<BusConfig>, ConfigError> {
        let mut buses: Vec<_> = self.fedora_messaging.iter().cloned().collect();
        if let Some(path) = &self.fedora_messaging_config {
            let text = std::fs::read_to_string(path)
                .map_err(|source| ConfigError::Read { path: path.clone(), source })?;
            buses.extend(BusConfig::from_python_config(&text, path)?);
        }
        Ok(buses)
    }

    /// Returns all queues that the configuration or a manifest names, with the number of their
    /// workers. The default queue is first.
    pub fn staffed_queues<'a>(
        &self,
        tasks: impl IntoIterator<Item = &'a Task>,
    ) -> Vec<StaffedQueue> {
        let Self { workers, prefetch, consumer_timeout, .. } = *self;
        let default = NamedQueue { workers, exclusive_order: false, prefetch };
        queues::staff(default, self.queues.clone(), consumer_timeout, tasks)
    }

    /// Returns the backend of the queues, and the settings of each queue.
    pub fn queues<'a>(&self, tasks: impl IntoIterator<Item = &'a Task>) -> loopabull_queue::Config {
        let backend = match &self.amqp_url {
            Some(url) => Backend::RabbitMq(RabbitMqConfig {
                idle_limit: RabbitMqConfig::IDLE_LIMIT,
                url: url.clone(),
                management: self.management_url.clone(),
                ack_timeout: self.consumer_timeout,
            }),
            None => Backend::Embedded { file: tables::path(&self.state), schema: tables::SCHEMA },
        };
        let queues = self.staffed_queues(tasks).into_iter().map(|queue| queue.config).collect();
        loopabull_queue::Config { backend, queues }
    }

    /// Returns the settings of the component runner, for at most `instances` concurrent instances.
    pub fn components(&self, instances: u32) -> Result<Setup, TlsRootsError> {
        let egress = EgressSetup {
            limits: EgressLimits::default(),
            tls_roots: TlsRoots::load(self.http.ca_file.as_deref())?,
        };
        Ok(Setup { instances, cache: self.state.join("components"), egress })
    }

    /// Returns the settings of the playbook runner. `runs` is the name of the folder in the state
    /// directory that contains the run directories.
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
            ..Settings::new(self.state.clone(), runs)
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            workers: 5,
            queues: BTreeMap::new(),
            tasks: "tasks".into(),
            playbooks: "playbooks".into(),
            linked_dirs: Vec::new(),
            state: "state".into(),
            listen: DEFAULT_LISTEN,
            allowed_hosts: Vec::new(),
            token_file: None,
            operate_token_file: None,
            amqp_url: None,
            prefetch: None,
            management_url: None,
            consumer_timeout: None,
            ignore_consumer_timeout: false,
            grace: Duration::from_secs(30),
            fedmsg: Fedmsg::default(),
            deduplication: Deduplication::default(),
            journal: Journal::default(),
            arrivals: Arrivals::default(),
            warnings: Warnings::default(),
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

impl Default for Arrivals {
    fn default() -> Self {
        Self { keep: 200_000 }
    }
}

impl Default for Journal {
    fn default() -> Self {
        let day = Duration::from_hours(24);
        Self { keep: 30 * day, keep_failed: 90 * day, max_size: ByteSize::gib(2) }
    }
}

/// Returns the text of an error. It quotes the line, except one with a URL, which can contain a password.
fn without_secret(text: &str, error: &toml::de::Error) -> String {
    let shown = error.to_string();
    if !shown.contains("://") {
        return shown;
    }
    let start = error.span().map_or(0, |span| span.start);
    let line = text.get(..start).unwrap_or_default().matches('\n').count() + 1;
    match error.message() {
        message if message.contains("://") => format!("TOML parse error at line {line}"),
        message => format!("TOML parse error at line {line}: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_with_exclusive_order_has_at_most_one_worker() {
        let config: Config =
            toml::from_str("[queues.a]\nworkers = 2\nexclusive_order = true").unwrap();
        assert!(matches!(config.validate(), Err(ConfigError::ExclusiveOrder { .. })));
    }

    #[test]
    fn an_allowed_host_is_a_name_without_a_port() {
        let validate = |name: &str| {
            let allowed_hosts = vec![name.to_owned()];
            Config { allowed_hosts, ..Config::default() }.validate()
        };
        assert!(validate("queue.example.org").is_ok());
        for name in ["queue.example.org:8480", "http://queue.example.org", "a b", ""] {
            assert!(matches!(validate(name), Err(ConfigError::AllowedHost { .. })), "{name}");
        }
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
