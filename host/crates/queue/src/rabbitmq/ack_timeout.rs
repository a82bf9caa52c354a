//! The broker's acknowledgement timeout: how long it lets a worker have a delivery.
//!
//! What passes it is delivered again while its task still runs, so a task that may run longer must
//! not start at all. RabbitMQ tells its own setting to nobody over AMQP or HTTP (looked for on
//! 3.10.8 and 4.0.5); what a queue or a policy says can be asked over HTTP, the rest is known by version (15 min in 3.8.15 and 3.8.16, 30
//! min since 3.8.17: RabbitMQ, "Consumers", delivery acknowledgement timeout).

use std::fmt;
use std::time::Duration;

use loopabull_model::QueueName;
use serde_json::Value;

use super::Amqp;
use super::broker::Version;
use super::topology::{OUR_ACK_TIMEOUT, QUEUE_ACK_TIMEOUT};

/// How long the HTTP API may take.
const PATIENCE: Duration = Duration::from_secs(10);
const INTRODUCED: Version = Version(3, 8, 15);
const LONGER: Version = Version(3, 8, 17);

/// How long the broker lets a worker have a delivery, and how we know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AckTimeout {
    pub limit: Duration,
    pub source: AckTimeoutSource,
    /// Whether the broker takes a timeout for a single queue, by a policy.
    pub has_policy: bool,
}

/// How the acknowledgement timeout is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AckTimeoutSource {
    /// The queue was declared with it, by us.
    Queue,
    /// The broker's HTTP API says so, of the queue or a policy.
    Management,
    /// Our configuration says so.
    Configuration,
    /// It is the default of the broker's version.
    Version,
}

impl fmt::Display for AckTimeoutSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queue => "as the queue was declared",
            Self::Management => "as the broker says",
            Self::Configuration => "as the configuration says",
            Self::Version => "the broker's default",
        })
    }
}

impl Amqp {
    /// Returns the acknowledgement timeout of a queue; none if there is none.
    pub(crate) async fn ack_timeout(&self, queue: &QueueName) -> Option<AckTimeout> {
        use AckTimeoutSource::{Configuration, Management, Queue, Version};
        // Over TLS the version is unknown; all that still get security patches have the limit.
        let version = self.version.unwrap_or(LONGER);
        let has_policy = version >= QUEUE_ACK_TIMEOUT;
        let found = |limit, source| Some(AckTimeout { limit, source, has_policy });
        match self.ask_management(queue).await {
            // Older brokers keep such an argument and do not heed it.
            Some(Some(limit)) if has_policy || self.version.is_none() => {
                return found(limit, Management);
            }
            Some(_) => (),
            None if has_policy && self.is_as_declared(queue) => {
                return found(OUR_ACK_TIMEOUT, Queue);
            }
            None => (),
        }
        if let Some(limit) = self.stated_ack_timeout {
            return found(limit, Configuration);
        }
        match version {
            version if version < INTRODUCED => None,
            version if version < LONGER => found(Duration::from_mins(15), Version),
            _ => found(Duration::from_mins(30), Version),
        }
    }

    /// Asks the HTTP API for what the queue or a policy says, if anything; none if it does not answer.
    async fn ask_management(&self, queue: &QueueName) -> Option<Option<Duration>> {
        let base = self.management.as_ref()?.trim_end_matches('/');
        let vhost = percent(self.broker.vhost());
        let url = format!("{base}/api/queues/{vhost}/{queue}");
        let asked = tokio::task::spawn_blocking(move || ask(&url)).await;
        match asked.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(answer) => Some(timeout_in(&answer)),
            Err(error) => {
                tracing::warn!("cannot ask RabbitMQ's HTTP API about queue `{queue}`: {error}");
                None
            }
        }
    }
}

fn ask(url: &str) -> Result<Value, String> {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build().into();
    let text = agent.get(url).call().and_then(|mut answer| answer.body_mut().read_to_string());
    // An error of this client holds no URL, and so no password.
    serde_json::from_str(&text.map_err(|error| error.to_string())?)
        .map_err(|error| error.to_string())
}

/// The smaller of what the queue's own argument and its policy say, in milliseconds.
fn timeout_in(queue: &Value) -> Option<Duration> {
    let argument = queue["arguments"]["x-consumer-timeout"].as_u64();
    let policy = queue["effective_policy_definition"]["consumer-timeout"].as_u64();
    argument.into_iter().chain(policy).min().map(Duration::from_millis)
}

fn percent(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let encode = |byte| {
        if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_of_argument_and_policy_counts() {
        let queue = |argument: &str, policy: &str| {
            let text = format!(
                r#"{{"arguments":{{{argument}}},"effective_policy_definition":{{{policy}}}}}"#
            );
            timeout_in(&serde_json::from_str(&text).unwrap()).map(|timeout| timeout.as_millis())
        };
        let (argument, policy) = (r#""x-consumer-timeout":7"#, r#""consumer-timeout":5"#);
        assert_eq!(queue("", ""), None);
        assert_eq!(queue(argument, ""), Some(7));
        assert_eq!(queue("", policy), Some(5));
        assert_eq!(queue(argument, policy), Some(5));
    }

    #[test]
    fn a_vhost_fits_into_a_path() {
        assert_eq!(percent("/"), "%2F");
        assert_eq!(percent("a-b ä"), "a-b%20%C3%A4");
    }
}
