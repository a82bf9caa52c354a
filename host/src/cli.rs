//! The command line of loopabull-host: its flags and subcommands. The doc comments on the types
//! below are the help texts.
//!
//! This module reads the configuration file, lets the flags override it, and calls the function of
//! one command. The commands themselves are in `commands`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use loopabull_model::{QueueName, QueueNameError};

use crate::commands::{self, failure::Failure};
use crate::config::{Config, ConfigError, DEFAULT_LISTEN, Endpoint, Role, Verify};
use crate::daemon::reexec::reexec_with_large_stacks;

/// Run a task for each message of a bus
///
/// Without a command, loopabull-host is a daemon: it receives messages from fedmsg or
/// fedora-messaging, stores them in a durable queue, and runs the task of each topic. A task is a
/// file: `tasks/NAME.wasm`, a WebAssembly component, or `playbooks/NAME.yml`, an Ansible playbook.
/// NAME is the topic, unless the manifest `NAME.toml` beside the file lists others, for example
/// `topics = ["org.example.*.thing.#"]`.
///
///     loopabull-host --workers 5 --fedmsg tcp://127.0.0.1:4001 --unsigned
///
/// The queue is a file in the state directory, or RabbitMQ with `--amqp-url`. A failed message is
/// retried after 10 s, 1 min, 10 min and 1 h, then dead-lettered. On SIGTERM the daemon drains: it
/// starts no new runs and waits for the runs in progress. A second SIGTERM cancels these runs and
/// requeues their messages.
#[derive(Debug, Parser)]
#[command(version, verbatim_doc_comment)]
pub struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    daemon: DaemonFlags,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Args)]
struct Settings {
    /// Read settings from this TOML file; flags take precedence
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of components and their manifests [default: tasks]
    #[arg(long, global = true, value_name = "DIR")]
    tasks: Option<PathBuf>,
    /// Directory of playbooks and their manifests [default: playbooks]
    #[arg(long, global = true, value_name = "DIR")]
    playbooks: Option<PathBuf>,
    /// Directory of the journal and the embedded queue [default: state]
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Use the queues of this RabbitMQ instead of the embedded queue
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "LOOPABULL_AMQP_URL",
        hide_env_values = true
    )]
    amqp_url: Option<String>,
}

#[derive(Debug, Args)]
struct DaemonFlags {
    /// Number of workers for the default queue [default: 5]
    #[arg(long, value_name = "N")]
    workers: Option<u32>,
    /// Number of workers for a named queue (repeatable)
    #[arg(long, value_name = "NAME=N", value_parser = queue_workers)]
    queue: Vec<(QueueName, u32)>,
    /// Subscribe to this fedmsg publisher over ZeroMQ (repeatable)
    #[arg(long, value_name = "ENDPOINT")]
    fedmsg: Vec<String>,
    /// Consume the queues of this fedora-messaging configuration file, for example
    /// /etc/fedora-messaging/config.toml
    #[arg(long, value_name = "FILE")]
    fedora_messaging: Option<PathBuf>,
    /// Subscribe only to fedmsg topics with this prefix (repeatable) [default: all topics]
    #[arg(long, value_name = "PREFIX")]
    topic: Vec<String>,
    /// Accept only fedmsg messages that are signed with a certificate issued by this CA (PEM)
    #[arg(long, value_name = "FILE", conflicts_with = "unsigned")]
    ca: Option<PathBuf>,
    /// Certificate revocation list of the CA
    #[arg(long, value_name = "FILE", requires = "ca")]
    crl: Option<PathBuf>,
    /// Accept fedmsg messages without checking their signatures
    ///
    /// Anyone who can publish on the endpoints can then start tasks. With `--fedmsg`, either `--ca`
    /// or `--unsigned` is required, unless the configuration file sets `ca` or `verify = "off"`
    /// under `[fedmsg]`.
    #[arg(long)]
    unsigned: bool,
    /// Serve the pages, /api/v1, /livez, /readyz, /warnings and /metrics on this address [default: 127.0.0.1:8480]
    #[arg(long, value_name = "ADDR", value_parser = listen)]
    listen: Option<SocketAddr>,
    /// Part of the work that this daemon does; `ingest` and `work` need `--amqp-url`
    #[arg(long, value_enum, default_value_t)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(commands::check::CheckArgs),
    Doctor(commands::doctor::DoctorArgs),
    Test(commands::test::TestArgs),
    Inject(commands::inject::InjectArgs),
    Send(commands::send::SendArgs),
    Verify(commands::verify::VerifyArgs),
    Status(commands::status::StatusArgs),
    Runs(commands::runs::RunsArgs),
    Failures(commands::failures::FailuresArgs),
    Messages(commands::messages::MessagesArgs),
    Explain(commands::explain::ExplainArgs),
    DeadLetters(commands::dead_letters::DeadLettersArgs),
    Pause(commands::pause::PauseArgs),
    Resume(commands::pause::ResumeArgs),
    Retry(commands::retry::RetryArgs),
    Audit(commands::audit::AuditArgs),
    Broker(commands::broker::BrokerArgs),
    Tasks(commands::tasks::TasksArgs),
}

impl Cli {
    /// Runs the command and returns its exit code.
    pub fn run(self) -> ExitCode {
        match self.dispatch() {
            Ok(code) => ExitCode::from(code),
            Err(failure) => failure.report(),
        }
    }

    fn dispatch(self) -> Result<u8, Failure> {
        let mut config = self.settings.read()?;
        if self.command.is_some() && config.amqp_url.is_some() {
            reexec_with_large_stacks()?;
        }
        match self.command {
            None => {
                let role = self.daemon.role;
                self.daemon.apply(&mut config);
                config.validate()?;
                if role != Role::All && config.amqp_url.is_none() {
                    return Err(ConfigError::RoleWithoutBroker.into());
                }
                if config.amqp_url.is_some() || !config.buses()?.is_empty() {
                    reexec_with_large_stacks()?;
                }
                commands::daemon::run(&config, role)
            }
            Some(Command::Check(args)) => commands::check::run(&config, &args),
            Some(Command::Doctor(args)) => commands::doctor::run(&config, &args),
            Some(Command::Test(args)) => commands::test::run(&config, &args),
            Some(Command::Inject(args)) => commands::inject::run(&config, &args),
            Some(Command::Send(args)) => commands::send::run(&config, args),
            Some(Command::Verify(args)) => commands::verify::run(&config, &args),
            Some(Command::Status(args)) => commands::status::run(&config, &args),
            Some(Command::Runs(args)) => commands::runs::run(&config, &args),
            Some(Command::Failures(args)) => commands::failures::run(&config, &args),
            Some(Command::Messages(args)) => commands::messages::run(&config, &args),
            Some(Command::Explain(args)) => commands::explain::run(&config, &args),
            Some(Command::DeadLetters(args)) => commands::dead_letters::run(&config, &args),
            Some(Command::Pause(args)) => commands::pause::pause(&config, &args),
            Some(Command::Resume(args)) => commands::pause::resume(&config, &args),
            Some(Command::Retry(args)) => commands::retry::run(&config, &args),
            Some(Command::Audit(args)) => commands::audit::run(&config, &args),
            Some(Command::Broker(args)) => commands::broker::run(&config, &args),
            Some(Command::Tasks(args)) => commands::tasks::run(&config, &args),
        }
    }
}

impl Settings {
    fn read(&self) -> Result<Config, ConfigError> {
        let mut config = match &self.config {
            Some(path) => Config::read(path)?,
            None => Config::default(),
        };
        set(&mut config.tasks, self.tasks.clone());
        set(&mut config.playbooks, self.playbooks.clone());
        set(&mut config.state, self.state.clone());
        if let Some(url) = self.amqp_url.clone().filter(|url| !url.is_empty()) {
            config.amqp_url = Some(url);
        }
        Ok(config)
    }
}

impl DaemonFlags {
    fn apply(self, config: &mut Config) {
        set(&mut config.workers, self.workers);
        for (name, workers) in self.queue {
            config.queues.entry(name).or_default().workers = workers;
        }
        set(&mut config.listen, self.listen);
        let endpoints = Some(self.fedmsg).filter(|list| !list.is_empty());
        let endpoints = endpoints.map(|list| list.into_iter().map(Endpoint::from).collect());
        set(&mut config.fedmsg.endpoints, endpoints);
        if self.fedora_messaging.is_some() {
            config.fedora_messaging_config = self.fedora_messaging;
        }
        set(&mut config.fedmsg.topics, Some(self.topic).filter(|list| !list.is_empty()));
        if let Some(ca) = self.ca {
            config.fedmsg.verify = Verify::Required;
            (config.fedmsg.ca, config.fedmsg.crl) = (Some(ca), self.crl);
        }
        set(&mut config.fedmsg.verify, self.unsigned.then_some(Verify::Off));
    }
}

/// An invalid value of `--queue`.
#[derive(Debug, thiserror::Error)]
enum QueueWorkersError {
    #[error("expected NAME=N, for example `slow=2`")]
    Form,
    #[error(transparent)]
    Name(#[from] QueueNameError),
    #[error("the number of workers `{0}` is not a whole number")]
    Number(String),
}

fn queue_workers(text: &str) -> Result<(QueueName, u32), QueueWorkersError> {
    let (name, workers) = text.split_once('=').ok_or(QueueWorkersError::Form)?;
    let workers = workers.parse().map_err(|_| QueueWorkersError::Number(workers.to_owned()))?;
    Ok((name.parse()?, workers))
}

/// Parses the address of the operator's port.
fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let port = DEFAULT_LISTEN.port();
        if text.parse::<Ipv6Addr>().is_ok() {
            return format!("the port is missing; write `[{text}]:{port}`");
        }
        if text.parse::<IpAddr>().is_ok() {
            return format!("the port is missing; write `{text}:{port}`");
        }
        format!("expected an IP address and a port, for example `{DEFAULT_LISTEN}`")
    })
}

fn set<T>(setting: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *setting = value;
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_definition_is_valid() {
        Cli::command().debug_assert();
    }
}
