//! How the queues on the broker stand to what we would make: found out, and made where missing.

use lapin::Channel;
use lapin::options::QueueDeclareOptions;
use lapin::types::{FieldTable, ShortString};
use loopabull_model::QueueName;
use serde::Serialize;

use super::session::Session;
use super::topology::Station;
use super::{Amqp, chain, lock};
use crate::QueueError;

/// The AMQP reply codes "not found", "access refused" and "precondition failed".
const NOT_FOUND: u16 = 404;
const ACCESS_REFUSED: u16 = 403;
const PRECONDITION_FAILED: u16 = 406;

/// How a queue on the broker stands to what we would make.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(tag = "standing", rename_all = "kebab-case")]
pub enum Standing {
    /// It is missing and will be made.
    Missing,
    /// It is as we would make it.
    Same,
    /// It is there with other arguments, or we may not compare them, and is used as it is.
    Differs { reason: String },
}

impl Amqp {
    /// Makes a queue on the broker, unless it is there, with whatever arguments.
    pub(super) async fn declare(
        &self,
        session: &Session,
        queue: &QueueName,
        station: &Station,
    ) -> Result<(), QueueError> {
        let name = station.name(queue);
        match self.stand(session, queue, station).await? {
            Standing::Missing => {
                let arguments = station.arguments(&self.config(queue));
                let channel = session.channel().await?;
                let declare =
                    channel.queue_declare(name.into(), QueueDeclareOptions::durable(), arguments);
                session.step("declare the queue", declare).await?;
            }
            Standing::Same => (),
            Standing::Differs { reason }
                if *station == Station::Work && self.config(queue).exclusive_order =>
            {
                let (broker, queue) = (self.broker.name.clone(), queue.to_string());
                return Err(QueueError::NotExclusive { broker, queue, reason });
            }
            Standing::Differs { reason } => {
                tracing::warn!(
                    "queue `{name}` is not as we would make it, and is used as it is; \
                     `loopabull-host broker plan` tells more: {reason}"
                );
                return Ok(());
            }
        }
        if *station == Station::Work {
            lock(&self.as_declared).insert(queue.clone());
        }
        Ok(())
    }

    /// Makes a queue on the broker if it is missing, and compares nothing.
    pub(super) async fn make_sure_of(
        &self,
        session: &Session,
        queue: &QueueName,
        station: &Station,
    ) -> Result<(), QueueError> {
        match self.count(session, queue, station).await? {
            Some(_) => Ok(()),
            None => self.declare(session, queue, station).await,
        }
    }

    /// Looks at a queue on the broker: first passively, which needs no permission to make one.
    pub(super) async fn stand(
        &self,
        session: &Session,
        queue: &QueueName,
        station: &Station,
    ) -> Result<Standing, QueueError> {
        if self.count(session, queue, station).await?.is_none() {
            return Ok(Standing::Missing);
        }
        let channel = session.channel().await?;
        let arguments = station.arguments(&self.config(queue));
        let name = ShortString::from(station.name(queue));
        let declare = channel.queue_declare(name, QueueDeclareOptions::durable(), arguments);
        match session.step("compare the queue", declare).await {
            Ok(_) => Ok(Standing::Same),
            Err(error) => match reply_code(&error) {
                Some(PRECONDITION_FAILED | ACCESS_REFUSED) => {
                    Ok(Standing::Differs { reason: chain(&error) })
                }
                _ => Err(error),
            },
        }
    }

    /// Returns how many entries wait in a queue on the broker; none if there is no such queue.
    pub(super) async fn count(
        &self,
        session: &Session,
        queue: &QueueName,
        station: &Station,
    ) -> Result<Option<u64>, QueueError> {
        let channel = session.channel().await?;
        match self.look_at(session, &channel, &station.name(queue)).await {
            Ok(count) => Ok(Some(count)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns how many entries wait in a queue on the broker that must be there.
    pub(super) async fn look_at(
        &self,
        session: &Session,
        channel: &Channel,
        name: &str,
    ) -> Result<u64, QueueError> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declare = channel.queue_declare(name.into(), passive, FieldTable::default());
        Ok(session.step("look at the queue", declare).await?.message_count().into())
    }
}

/// Tells whether there is no such queue.
pub(super) fn is_missing(error: &QueueError) -> bool {
    reply_code(error) == Some(NOT_FOUND)
}

/// Returns the reply code by which the broker refused something.
fn reply_code(error: &QueueError) -> Option<u16> {
    let QueueError::Amqp { source, .. } = error else { return None };
    match source.kind() {
        lapin::ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}
