//! Errors in the configuration, with hints for the operator.

use std::net::SocketAddr;
use std::path::PathBuf;

use loopabull_fedora_messaging::PythonConfigError;
use loopabull_model::QueueName;

/// The reason why a configuration cannot be used.
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
    #[error("`--role` needs a queue on RabbitMQ, but the queue is embedded")]
    RoleWithoutBroker,
    #[error("`{key}` is {value}, but must be between 1 and 1000")]
    Range { key: String, value: u32 },
    #[error("queue `{queue}` has {workers} workers, but `exclusive_order` allows only one")]
    ExclusiveOrder { queue: QueueName, workers: u32 },
    #[error("`{name}` in `allowed_hosts` is not the name of a host without a port")]
    AllowedHost { name: String },
    #[error("`{listen}` can be reached from other machines, but no token is configured")]
    NoToken { listen: SocketAddr },
    #[error("the tokens in `token_file` and `operate_token_file` are the same")]
    SameToken,
    #[error("cannot read the token in `{path}`")]
    Token { path: PathBuf, source: std::io::Error },
    #[error(
        "the token in `{path}` cannot be used: it must have 32 to 512 ASCII characters and no spaces"
    )]
    TokenForm { path: PathBuf },
    #[error("`{address}` is not the address of a fedmsg publisher: {reason}")]
    Endpoint { address: String, reason: &'static str },
    #[error("the directories `state` and `{key}` overlap")]
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
            Self::NoToken { .. } | Self::TokenForm { .. } => Some(
                "listen on 127.0.0.1, or make a token with `(umask 077; openssl rand -hex 32 > token)` and set \
                 `token_file = \"token\"` in the configuration",
            ),
            Self::Token { .. } => {
                Some("run the command as the daemon's user, who can read the token")
            }
            Self::Endpoint { .. } => {
                Some("write an address as `tcp://HOST:PORT` or `tcp://[IPV6]:PORT`")
            }
            Self::RoleWithoutBroker => Some("name the broker with `--amqp-url URL`"),
            Self::Nested { .. } => Some(
                "choose separate directories, so that playbooks cannot read the daemon's state",
            ),
            Self::ExclusiveOrder { .. } => {
                Some("set `workers = 1` for this queue, or remove `exclusive_order`")
            }
            Self::DefaultQueue => {
                Some("set the number of its workers with the top-level key `workers`")
            }
            _ => None,
        }
    }
}
