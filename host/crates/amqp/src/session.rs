//! A session: one connection that publishes and one that consumes, from connecting to the first fault.
//!
//! There are two connections because a broker that is short of memory or disk stops reading from
//! publishers, while acknowledgements must still get through. Any fault of either connection ends the
//! session, and no part of it is used again. Lapin's own recovery is not used: it forgets the prefetch
//! and gives up.

use std::time::Duration;

use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::ShortString;
use lapin::{Channel, Confirmation, Connection, ErrorKind};
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::error::AmqpError;
use crate::publishers::{Publication, Published, Publishers};

/// How often the connections are checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// How long closing the connections may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The connections to a broker, from connecting to the first fault.
#[derive(Debug)]
pub struct Session {
    generation: u64,
    broker: Broker,
    publishers: Publishers,
    consuming: Connection,
    ended: CancellationToken,
}

impl Session {
    pub(crate) async fn start(broker: &Broker, generation: u64) -> Result<Self, AmqpError> {
        Ok(Self {
            generation,
            broker: broker.clone(),
            publishers: Publishers::new(broker.connect("publish").await?),
            consuming: broker.connect("work").await?,
            ended: CancellationToken::new(),
        })
    }

    /// Returns the session's number, counted from 1. A delivery can be settled only in the session in
    /// which it was received.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns whether both connections work, as far as we know.
    pub fn is_up(&self) -> bool {
        !self.ended.is_cancelled()
            && self.publishers.is_connected()
            && self.consuming.status().connected()
    }

    /// Waits until the session has ended.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Opens a channel on the consuming connection.
    pub async fn open_channel(&self) -> Result<Channel, AmqpError> {
        self.step("open a channel", self.consuming.create_channel()).await
    }

    /// Waits for one request to the broker. A request that is not answered in time ends the session.
    ///
    /// `action` completes "cannot …" in the error.
    pub async fn step<T>(
        &self,
        action: &'static str,
        step: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, AmqpError> {
        let result = tokio::select! {
            result = self.broker.wait(action, step) => result,
            () = self.ended.cancelled() => return Err(self.broker.connection_lost(action)),
        };
        if matches!(result, Err(AmqpError::Timeout { .. })) {
            self.ended.cancel();
        }
        result
    }

    /// Publishes a message and waits for the broker's confirm.
    ///
    /// The wait is limited only by the session. A broker with an alarm accepts the message when the
    /// alarm is over, so a caller that published it again meanwhile would duplicate it.
    pub async fn publish(&self, publication: &Publication<'_>) -> Result<Published, AmqpError> {
        let confirmation = tokio::select! {
            confirmation = self.publishers.publish(publication) => confirmation,
            () = self.ended.cancelled() => return Err(self.broker.connection_lost("publish")),
        };
        let (broker, routing_key) =
            (self.broker.name().to_owned(), publication.routing_key.to_owned());
        let reason = match confirmation {
            Ok(Confirmation::Ack(None)) => return Ok(Published::Confirmed),
            // 312, "no route", is the only reason for which a mandatory message is returned.
            Ok(Confirmation::Ack(Some(_))) => return Ok(Published::Unroutable),
            Ok(Confirmation::Nack(_)) => "it was refused".to_owned(),
            Ok(Confirmation::NotRequested) => "confirms are off".to_owned(),
            Err(error) => match too_large(&error) {
                // The broker closed the channel, and nothing else.
                Some(reason) => return Err(AmqpError::TooLarge { broker, routing_key, reason }),
                None => {
                    self.ended.cancel();
                    return Err(self.broker.error("publish", error));
                }
            },
        };
        Err(AmqpError::NotConfirmed { broker, routing_key, reason })
    }

    /// Returns whether the broker has stopped reading from publishers.
    pub(crate) fn is_blocked(&self) -> bool {
        self.publishers.is_blocked()
    }

    /// Returns whether a publish has waited for its confirm longer than
    /// [`STEP_TIMEOUT`](crate::STEP_TIMEOUT).
    pub(crate) fn is_stalled(&self) -> bool {
        self.publishers.is_stalled()
    }

    /// Watches the connections and returns once the session has ended.
    pub(crate) async fn watch(&self) {
        while self.is_up() {
            tokio::select! {
                () = tokio::time::sleep(CHECK_INTERVAL) => (),
                () = self.ended.cancelled() => (),
            }
        }
        self.ended.cancel();
    }

    /// Closes the connections that are still open, for at most [`CLOSE_TIMEOUT`].
    pub(crate) async fn close(&self) {
        let reason = ShortString::from("the session has ended");
        let both =
            async { tokio::join!(self.consuming.close(200, reason), self.publishers.close()) };
        // The result does not matter: nothing of this session is used again.
        drop(tokio::time::timeout(CLOSE_TIMEOUT, both).await);
    }
}

/// Returns the broker's text if it refused a message that is larger than its `max_message_size`.
///
/// The broker then closes the channel with 406 (RabbitMQ, `rabbit_channel:check_msg_size`). The default is
/// 16 MiB since 4.0 and was 128 MiB before.
fn too_large(error: &lapin::Error) -> Option<String> {
    let ErrorKind::ProtocolError(refusal) = error.kind() else { return None };
    let is_size = matches!(refusal.kind(), AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED))
        && refusal.get_message().as_str().contains("message size");
    is_size.then(|| refusal.get_message().to_string())
}
