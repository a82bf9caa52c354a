//! The plan: what stands on the broker, what is missing, and what differs from what we would make.

use serde::Serialize;

use super::Amqp;
use super::standing::Standing;
use super::topology::{DEFAULT_DELIVERY_LIMIT, DELIVERY_LIMIT, QUEUE_ACK_TIMEOUT, Station};
use crate::{Config, QueueError};

/// What is to be done on the broker.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    pub broker: String,
    /// Unknown over TLS.
    pub version: Option<String>,
    pub changes: Vec<Change>,
    /// What an operator should know about this version, a sentence each.
    pub warnings: Vec<String>,
}

/// One queue on the broker.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    pub queue: String,
    #[serde(flatten)]
    pub standing: Standing,
    /// The arguments that we would declare it with.
    pub arguments: String,
}

impl Amqp {
    /// Looks at the broker and changes nothing.
    pub(crate) async fn plan(config: &Config) -> Result<Plan, QueueError> {
        let amqp = Self::connect(config).await?;
        let session = amqp.supervisor.session().await?;
        let mut changes = Vec::new();
        for queue in &config.queues {
            for station in Station::always() {
                let standing = amqp.stand(&session, &queue.name, &station).await?;
                let arguments = station.arguments(queue);
                let arguments: Vec<String> = arguments
                    .inner()
                    .iter()
                    .map(|(name, value)| format!("{name}={}", super::plain(value)))
                    .collect();
                let queue = station.name(&queue.name);
                changes.push(Change { queue, standing, arguments: arguments.join(" ") });
            }
        }
        let version = amqp.version.map(|version| version.to_string());
        let warnings = amqp.warnings(&changes);
        Ok(Plan { broker: amqp.broker.name.clone(), version, changes, warnings })
    }

    fn warnings(&self, changes: &[Change]) -> Vec<String> {
        let mut warnings = Vec::new();
        let Some(version) = self.version else {
            warnings.push(
                "the version of the broker is not known over TLS: its own delivery limit and \
                 acknowledgement timeout are taken for those of 3.10"
                    .to_owned(),
            );
            return warnings;
        };
        let differs = |change: &Change| matches!(change.standing, Standing::Differs { .. });
        if changes.iter().any(|change| differs(change) && !change.queue.contains('.')) {
            let command = format!(
                "rabbitmqctl set_policy loopabull '^NAME$' \
                 '{{\"delivery-limit\":{DELIVERY_LIMIT},\"dead-letter-exchange\":\"\",\
                 \"dead-letter-routing-key\":\"NAME.dead\",\
                 \"dead-letter-strategy\":\"at-least-once\",\"overflow\":\"reject-publish\"}}' \
                 --apply-to queues"
            );
            warnings.push(format!(
                "a queue that differs is used as it is; what it lacks can be given to it by a \
                 policy: {command}"
            ));
            warnings.push(
                "dead-lettering at least once needs `overflow` = `reject-publish`: with another \
                 overflow the broker falls back to at most once without a word"
                    .to_owned(),
            );
        }
        if version >= DEFAULT_DELIVERY_LIMIT
            && changes.iter().any(|change| differs(change) && change.queue.ends_with(".dead"))
        {
            warnings.push(format!(
                "a queue of dead letters differs: RabbitMQ {version} drops a dead letter that was \
                 looked at 20 times, unless a policy gives the queue a high `delivery-limit`"
            ));
        }
        if version < QUEUE_ACK_TIMEOUT {
            warnings.push(format!(
                "RabbitMQ {version} has one acknowledgement timeout for all queues \
                 (`consumer_timeout` in rabbitmq.conf, 30 min if it is not set): no task may run \
                 longer"
            ));
        }
        if version >= DEFAULT_DELIVERY_LIMIT {
            warnings.push(format!(
                "RabbitMQ {version} gives every quorum queue a delivery limit of 20 and drops what \
                 passes it, unless the queue says otherwise: ours say {DELIVERY_LIMIT} and where to \
                 put it, a queue that was made by others may not"
            ));
        }
        if version >= super::broker::Version(4, 3, 0) {
            warnings.push(format!(
                "RabbitMQ {version} does not count `basic.nack` towards the delivery limit; our \
                 attempts do not depend on it"
            ));
        }
        warnings
    }
}
