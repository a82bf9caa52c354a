//! The declaration of a queue: comparing a queue on the broker with our arguments, and creating a missing
//! queue.

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use loopabull_amqp::{AmqpError, Session};
use loopabull_model::chain;
use serde::Serialize;

/// The AMQP reply codes "access refused", "not found", "resource locked" and "precondition failed".
const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const RESOURCE_LOCKED: u16 = 405;
const PRECONDITION_FAILED: u16 = 406;

/// The result of comparing a queue on the broker with our declaration.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Declaration {
    /// The queue does not exist and will be created.
    Missing,
    /// The queue matches our declaration.
    Same,
    /// The arguments of the queue differ from ours, or the broker does not permit the comparison. The host
    /// uses the queue as it is.
    Differs { reason: String },
}

/// Compares a queue on the broker with our arguments. The check whether the queue exists is passive, so it
/// needs no permission to create queues.
pub(super) async fn compare(
    session: &Session,
    name: &str,
    arguments: FieldTable,
) -> Result<Declaration, AmqpError> {
    if count(session, name).await?.is_none() {
        return Ok(Declaration::Missing);
    }
    let channel = session.open_asking_channel().await?;
    let declare = channel.queue_declare(name.into(), QueueDeclareOptions::durable(), arguments);
    match session.step("declare the queue with our arguments", declare).await {
        Ok(_) => Ok(Declaration::Same),
        Err(error) => match error.reply_code() {
            Some(PRECONDITION_FAILED | ACCESS_REFUSED) => {
                Ok(Declaration::Differs { reason: chain(&error) })
            }
            _ => Err(error),
        },
    }
}

/// Creates a queue.
pub(super) async fn create(
    session: &Session,
    name: &str,
    arguments: FieldTable,
) -> Result<(), AmqpError> {
    let channel = session.open_asking_channel().await?;
    let declare = channel.queue_declare(name.into(), QueueDeclareOptions::durable(), arguments);
    session.step("declare the queue", declare).await.map(|_| ())
}

/// Returns the number of messages that wait in a queue; `None` if the queue does not exist.
pub(super) async fn count(session: &Session, name: &str) -> Result<Option<u64>, AmqpError> {
    let channel = session.open_asking_channel().await?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let declare = channel.queue_declare(name.into(), passive, FieldTable::default());
    match session.step("count the messages of the queue", declare).await {
        Ok(queue) => Ok(Some(queue.message_count().into())),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns whether the broker answered that the queue does not exist.
pub(super) fn is_missing(error: &AmqpError) -> bool {
    error.reply_code() == Some(NOT_FOUND)
}

/// Returns whether the broker will not create a queue, because the user lacks the permission, or because the
/// virtual host has its maximum number of queues.
pub(super) fn is_refused(error: &AmqpError) -> bool {
    matches!(error.reply_code(), Some(ACCESS_REFUSED | RESOURCE_LOCKED | PRECONDITION_FAILED))
}
