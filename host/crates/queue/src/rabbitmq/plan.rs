//! The comparison of our queues with the queues on the broker, for the command `loopabull-host broker plan`.
//!
//! A plan lists the state of each queue, and warns about differences. It changes nothing on the broker.

use lapin::types::AMQPValue;
use loopabull_amqp::{AmqpError, Version};
use serde::Serialize;

use super::declaration::{self, Declaration};
use super::shared::Shared;
use super::topology::{
    DEFAULT_DELIVERY_LIMIT_SINCE, DELIVERY_LIMIT, QUEUE_ACK_TIMEOUT_SINCE, QueueRole,
};
use crate::config::{QueueConfig, RabbitMqConfig};
use crate::error::QueueError;

/// First version of RabbitMQ that does not count `basic.nack` towards the delivery limit.
const NACK_NOT_COUNTED_SINCE: Version = Version(4, 3, 0);

/// The state of our queues on the broker, and the changes that [`Plan::apply`] would make.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    pub broker: String,
    /// Version of the broker. `None` if it is unknown, for example over TLS.
    pub version: Option<String>,
    pub changes: Vec<Change>,
    /// Warnings for the operator about the broker's version and about queues that differ.
    pub warnings: Vec<String>,
}

/// The state of one queue on the broker.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    pub queue: String,
    #[serde(flatten)]
    pub declaration: Declaration,
    /// Arguments of our declaration, as text.
    pub arguments: String,
}

impl Plan {
    /// Creates the missing queues, also those that the host creates only when a task is paused or refused.
    pub async fn apply(
        settings: &RabbitMqConfig,
        queues: &[QueueConfig],
    ) -> Result<(), QueueError> {
        let shared = Shared::connect(settings, queues).await?;
        let session = shared.session().await?;
        for config in queues {
            for role in QueueRole::permanent(config).chain(QueueRole::held(config)) {
                shared.declare(&session, &config.name, &role).await?;
            }
        }
        Ok(())
    }

    /// Compares the queues on the broker with our declarations. Changes nothing.
    pub async fn of(settings: &RabbitMqConfig, queues: &[QueueConfig]) -> Result<Self, AmqpError> {
        let shared = Shared::connect(settings, queues).await?;
        let session = shared.session().await?;
        let mut changes = Vec::new();
        for config in queues {
            for role in QueueRole::permanent(config).chain(QueueRole::held(config)) {
                let (queue, table) = (role.name(&config.name), role.arguments(config));
                let arguments: Vec<String> = table
                    .inner()
                    .iter()
                    .map(|(name, value)| format!("{name}={}", argument_text(value)))
                    .collect();
                let declaration = declaration::compare(&session, &queue, table).await?;
                changes.push(Change { queue, declaration, arguments: arguments.join(" ") });
            }
        }
        let warnings = warnings(shared.version, &changes);
        let version = shared.version.map(|version| version.to_string());
        Ok(Self { broker: shared.broker.name().to_owned(), version, changes, warnings })
    }
}

fn warnings(version: Option<Version>, changes: &[Change]) -> Vec<String> {
    let mut warnings = Vec::new();
    let Some(version) = version else {
        warnings.push(
            "the version of the broker is unknown, because the connection uses TLS: the host assumes \
                 the delivery limit and the acknowledgement timeout of RabbitMQ 3.10"
                .to_owned(),
        );
        return warnings;
    };
    let differs = |change: &Change| matches!(change.declaration, Declaration::Differs { .. });
    if changes.iter().any(|change| differs(change) && !change.queue.contains('.')) {
        let command = format!(
            "rabbitmqctl set_policy loopabull '^NAME$' \
                 '{{\"delivery-limit\":{DELIVERY_LIMIT},\"dead-letter-exchange\":\"\",\
                 \"dead-letter-routing-key\":\"NAME.dead\",\
                 \"dead-letter-strategy\":\"at-least-once\",\"overflow\":\"reject-publish\"}}' \
                 --apply-to queues"
        );
        warnings.push(format!(
            "a queue differs, and the host uses it unchanged; this policy adds the missing settings: \
                 {command}"
        ));
        warnings.push(
            "at-least-once dead-lettering requires `overflow` = `reject-publish`: with another \
                 overflow the broker silently falls back to at-most-once"
                .to_owned(),
        );
    }
    if version >= DEFAULT_DELIVERY_LIMIT_SINCE
        && changes.iter().any(|change| differs(change) && change.queue.ends_with(".dead"))
    {
        warnings.push(format!(
            "a queue of dead letters differs: RabbitMQ {version} drops a dead letter that was read \
                 20 times, unless a policy gives the queue a high `delivery-limit`"
        ));
    }
    if version < QUEUE_ACK_TIMEOUT_SINCE {
        warnings.push(format!(
            "RabbitMQ {version} has one acknowledgement timeout for all queues \
                 (`consumer_timeout` in rabbitmq.conf, 30 min by default), which no task may exceed"
        ));
    }
    if version >= DEFAULT_DELIVERY_LIMIT_SINCE {
        warnings.push(format!(
            "in RabbitMQ {version}, a quorum queue that declares no delivery limit has a limit of 20, and \
                 drops messages beyond the limit: queues that the host creates have a limit of \
                 {DELIVERY_LIMIT} and dead-letter such messages, so check queues that others created"
        ));
    }
    if version >= NACK_NOT_COUNTED_SINCE {
        warnings.push(format!(
            "RabbitMQ {version} does not count `basic.nack` towards the delivery limit; this has no \
                 effect on the host, which counts attempts itself"
        ));
    }
    warnings
}

/// Returns an argument of a queue as text for the operator.
fn argument_text(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => format!("'{text}'"),
        AMQPValue::LongInt(number) => number.to_string(),
        AMQPValue::LongLongInt(number) => number.to_string(),
        AMQPValue::Boolean(value) => value.to_string(),
        value => format!("{value:?}"),
    }
}
