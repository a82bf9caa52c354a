//! The command line. The doc comments here are the help texts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use loopabull_model::{QueueName, QueueNameError};

use crate::commands::{self, failure::Failure};
use crate::config::{Config, ConfigError, Endpoint, Role, Verify};
use crate::daemon::reexec;

/// Runs a task for each message of a bus.
///
/// Without a command it is the daemon: messages come in from fedmsg, wait in a durable queue, and
/// workers run the task of their topic. A task is a file: `tasks/NAME.wasm`, a WebAssembly
/// component, or `playbooks/NAME.yml`, an Ansible playbook. NAME is the topic, unless a manifest
/// `NAME.toml` beside it says `topics = ["org.example.*.thing.#"]`.
///
///     loopabull-host --workers 5 --fedmsg tcp://127.0.0.1:4001 --unsigned
///
/// The queue is a file in the state directory, or RabbitMQ with `--amqp-url`. What fails is tried
/// again after 10 s, 1 min, 10 min and 1 h, and is then a dead letter. SIGTERM drains: nothing new is
/// taken and what runs may end; a second SIGTERM gives it back at once.
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
    /// Read settings from this TOML file; flags win over it
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of components and their manifests [default: tasks]
    #[arg(long, global = true, value_name = "DIR")]
    tasks: Option<PathBuf>,
    /// Directory of playbooks and their manifests [default: playbooks]
    #[arg(long, global = true, value_name = "DIR")]
    playbooks: Option<PathBuf>,
    /// Directory of the journal and of the embedded queue [default: state]
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Keep the queue in this RabbitMQ, not in the state directory
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
    /// How many messages of the queue `workers` are worked at a time [default: 5]
    #[arg(long, value_name = "N")]
    workers: Option<u32>,
    /// How many of another queue, to which a manifest sends its task; may be given again
    #[arg(long, value_name = "NAME=N", value_parser = queue_workers)]
    queue: Vec<(QueueName, u32)>,
    /// Subscribe to this fedmsg publisher (ZeroMQ); may be given again
    #[arg(long, value_name = "ENDPOINT")]
    fedmsg: Vec<String>,
    /// Consume what this configuration file of fedora-messaging says, for example
    /// /etc/fedora-messaging/config.toml
    #[arg(long, value_name = "FILE")]
    fedora_messaging: Option<PathBuf>,
    /// Take only topics that start so; may be given again [default: all]
    #[arg(long, value_name = "PREFIX")]
    topic: Vec<String>,
    /// Take messages that are signed by a certificate of this CA (PEM)
    #[arg(long, value_name = "FILE", conflicts_with = "unsigned")]
    ca: Option<PathBuf>,
    /// The CA's list of revoked certificates
    #[arg(long, value_name = "FILE", requires = "ca")]
    crl: Option<PathBuf>,
    /// Take messages without looking at signatures
    ///
    /// Whoever can publish on the endpoints can then start tasks. A fedmsg source needs either `--ca`
    /// or this flag, or `ca` or `verify = "off"` under `[fedmsg]`.
    #[arg(long)]
    unsigned: bool,
    /// Serve /livez, /readyz, /metrics and /status here [default: 127.0.0.1:8480]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Do only a part of the road: take messages in, or work them; needs `--amqp-url`
    #[arg(long, value_enum, default_value_t)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(commands::check::CheckArgs),
    Test(commands::test::TestArgs),
    Inject(commands::inject::InjectArgs),
    Verify(commands::verify::VerifyArgs),
    Status(commands::status::StatusArgs),
    Runs(commands::runs::RunsArgs),
    DeadLetters(commands::dead_letters::DeadLettersArgs),
    Pause(commands::pause::PauseArgs),
    Resume(commands::pause::ResumeArgs),
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
            reexec::make_room()?;
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
                    reexec::make_room()?;
                }
                commands::daemon::run(&config, role)
            }
            Some(Command::Check(args)) => commands::check::run(&config, &args),
            Some(Command::Test(args)) => commands::test::run(&config, &args),
            Some(Command::Inject(args)) => commands::inject::run(&config, &args),
            Some(Command::Verify(args)) => commands::verify::run(&config, &args),
            Some(Command::Status(args)) => commands::status::run(&config, &args),
            Some(Command::Runs(args)) => commands::runs::run(&config, &args),
            Some(Command::DeadLetters(args)) => commands::dead_letters::run(&config, &args),
            Some(Command::Pause(args)) => commands::pause::pause(&config, &args),
            Some(Command::Resume(args)) => commands::pause::resume(&config, &args),
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

fn queue_workers(text: &str) -> Result<(QueueName, u32), String> {
    let (name, workers) = text.split_once('=').ok_or("it must be NAME=N")?;
    let name = name.parse().map_err(|error: QueueNameError| error.to_string())?;
    let workers = workers.parse().map_err(|_| format!("`{workers}` is not a number"))?;
    Ok((name, workers))
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
