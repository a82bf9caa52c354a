//! The errors of the configuration, with hints for the operator.

use std::path::PathBuf;

use loopabull_fedora_messaging::PythonConfigError;
use loopabull_model::QueueName;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration `{path}`")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot use the configuration `{path}`: {reason}")]
    Parse { path: PathBuf, reason: String },
    #[error(transparent)]
    FedoraMessaging(#[from] PythonConfigError),
    #[error("fedmsg signatures must be checked, but no CA is configured")]
    Unverified,
    #[error("`--role` needs a queue that several daemons share, but the queue is embedded")]
    RoleWithoutBroker,
    #[error("`{key}` is {value}, but must be between 1 and 1000")]
    Range { key: String, value: u32 },
    #[error("queue `{queue}` has `exclusive_order` and {workers} workers")]
    ExclusiveOrder { queue: QueueName, workers: u32 },
    #[error("one of the directories `state` and `{key}` contains the other")]
    Nested { key: &'static str },
    #[error("the queue `workers` cannot be configured under `[queues]`")]
    DefaultQueue,
}

impl ConfigError {
    /// Returns a hint for the operator.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unverified => Some(
                "name the certificate of the CA with `--ca FILE`, or with `ca` under `[fedmsg]`; to \
                 accept unsigned messages from anyone, use `--unsigned` or `verify = \"off\"`",
            ),
            Self::RoleWithoutBroker => Some("use a queue on RabbitMQ: `--amqp-url URL`"),
            Self::Nested { .. } => {
                Some("separate them: playbooks must not be able to read the daemon's state")
            }
            Self::ExclusiveOrder { .. } => {
                Some("set `workers = 1`: only one worker at a time can consume it")
            }
            Self::DefaultQueue => {
                Some("set its number of workers with the top-level key `workers`")
            }
            _ => None,
        }
    }
}
