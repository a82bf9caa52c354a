//! The broker's acknowledgement timeout: the time for which a delivery may stay unsettled.
//!
//! If a task runs longer than the timeout, the broker redelivers the entry while the task still runs. The
//! host therefore refuses a task whose own timeout is too long.
//!
//! The timeout in RabbitMQ's configuration file, `consumer_timeout`, cannot be read over AMQP or HTTP
//! (checked on 3.10.8 and 4.0.5). The HTTP API reports the timeout of a queue or of a policy. If nothing else
//! is known, the host assumes the default of the broker's version: 15 min in 3.8.15 and 3.8.16, 30 min since
//! 3.8.17 (RabbitMQ, "Consumers", delivery acknowledgement timeout).

use std::fmt;
use std::time::Duration;

use loopabull_amqp::Version;
use loopabull_model::QueueName;
use serde_json::Value;

use super::shared::Shared;
use super::topology::{DECLARED_ACK_TIMEOUT, QUEUE_ACK_TIMEOUT_SINCE};

/// Timeout of a request to RabbitMQ's HTTP API.
const HTTP_TIMEOUT: Duration = Duration::from_secs(10);
/// First version of RabbitMQ with an acknowledgement timeout. The default timeout of this version is 15 min.
const INTRODUCED: Version = Version(3, 8, 15);
/// First version of RabbitMQ whose default acknowledgement timeout is 30 min.
const RAISED: Version = Version(3, 8, 17);

/// The acknowledgement timeout of a queue, and the source of this value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AckTimeout {
    pub limit: Duration,
    pub source: AckTimeoutSource,
    /// Whether the broker supports a timeout for a single queue, which a policy can set.
    pub has_policy: bool,
}

/// The source of an acknowledgement timeout.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AckTimeoutSource {
    /// The arguments in our declaration of the queue.
    Queue,
    /// The broker's HTTP API, which reported the timeout of the queue or of its policy.
    Management,
    /// The host's configuration.
    Configuration,
    /// The default of the broker's version.
    Version,
}

impl fmt::Display for AckTimeoutSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queue => "set by the queue's declaration",
            Self::Management => "reported by the broker",
            Self::Configuration => "set in the configuration",
            Self::Version => "the broker's default",
        })
    }
}

/// Returns the acknowledgement timeout of a queue; `None` if the broker's version has no timeout.
pub(super) async fn ack_timeout(shared: &Shared, queue: &QueueName) -> Option<AckTimeout> {
    use AckTimeoutSource::{Configuration, Management, Queue, Version};
    // Over TLS, the version is unknown. We then assume a timeout of 30 min, the default of all versions that
    // still get security patches.
    let version = shared.version.unwrap_or(RAISED);
    let has_policy = version >= QUEUE_ACK_TIMEOUT_SINCE;
    let found = |limit, source| Some(AckTimeout { limit, source, has_policy });
    match ask_management(shared, queue).await {
        // Brokers before 3.12 report the timeout of a queue but do not apply it. We use the reported timeout
        // for newer brokers, and if the version is unknown.
        Some(Some(limit)) if has_policy || shared.version.is_none() => {
            return found(limit, Management);
        }
        Some(_) => (),
        None if has_policy && shared.matches_declaration(queue) => {
            return found(DECLARED_ACK_TIMEOUT, Queue);
        }
        None => (),
    }
    if let Some(limit) = shared.settings.ack_timeout {
        return found(limit, Configuration);
    }
    match version {
        version if version < INTRODUCED => None,
        version if version < RAISED => found(Duration::from_mins(15), Version),
        _ => found(Duration::from_mins(30), Version),
    }
}

/// Asks RabbitMQ's HTTP API for the timeout of a queue or of its policy. Returns `Some(None)` if no timeout
/// is set. Returns `None` if the API is not configured or does not answer.
async fn ask_management(shared: &Shared, queue: &QueueName) -> Option<Option<Duration>> {
    let base = shared.settings.management.as_ref()?.trim_end_matches('/');
    let vhost = percent_encode(shared.broker.vhost());
    let url = format!("{base}/api/queues/{vhost}/{queue}");
    let answer = tokio::task::spawn_blocking(move || ask(&url)).await;
    match answer.unwrap_or_else(|error| Err(error.to_string())) {
        Ok(answer) => Some(timeout_in(&answer)),
        Err(error) => {
            tracing::warn!("cannot ask RabbitMQ's HTTP API about queue `{queue}`: {error}");
            None
        }
    }
}

fn ask(url: &str) -> Result<Value, String> {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(HTTP_TIMEOUT)).build().into();
    let text = agent.get(url).call().and_then(|mut answer| answer.body_mut().read_to_string());
    // The URL contains a password. The errors of `ureq` do not contain the URL, so they may be logged.
    serde_json::from_str(&text.map_err(|error| error.to_string())?)
        .map_err(|error| error.to_string())
}

/// Returns the timeout in a queue's arguments or the timeout in its policy, whichever is smaller.
fn timeout_in(queue: &Value) -> Option<Duration> {
    let argument = queue["arguments"]["x-consumer-timeout"].as_u64();
    let policy = queue["effective_policy_definition"]["consumer-timeout"].as_u64();
    argument.into_iter().chain(policy).min().map(Duration::from_millis)
}

fn percent_encode(text: &str) -> String {
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
    fn the_smaller_of_argument_and_policy_applies() {
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
    fn a_vhost_is_encoded_for_a_path() {
        assert_eq!(percent_encode("/"), "%2F");
        assert_eq!(percent_encode("a-b ä"), "a-b%20%C3%A4");
    }
}
