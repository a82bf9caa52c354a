//! A session: one connection for publishing and one for consuming, from connecting to the first fault.
//!
//! A broker that is short of memory or disk stops reading from connections that publish. With a second
//! connection, acknowledgements still reach the broker. A third connection is opened for questions about queues:
//! the broker answers some of them by closing a channel, which must not use up the channels of the consumers.
//!
//! Any fault of the first two connections ends the session. A new session opens new connections and channels. We do
//! not use lapin's own recovery: it does not restore the prefetch, and it gives up after some retries.

use std::time::Duration;

use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::ShortString;
use lapin::{Channel, Confirmation, Connection, ErrorKind};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::error::AmqpError;
use crate::publishers::{Publication, Published, Publishers};

/// Number of channels that a connection has at most, unless the broker is configured otherwise (`channel_max`).
const MAX_CHANNELS: u32 = 2047;

/// Interval at which the connections are checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// Timeout for closing the connections.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The connections to a broker, from connecting to the first fault.
#[derive(Debug)]
pub struct Session {
    generation: u64,
    broker: Broker,
    publishers: Publishers,
    consuming: Connection,
    /// The connection for questions. `None` until the first question, and after its channels were used up.
    asking: Mutex<Option<Connection>>,
    ended: CancellationToken,
}

impl Session {
    pub(crate) async fn start(broker: &Broker, generation: u64) -> Result<Self, AmqpError> {
        Ok(Self {
            generation,
            broker: broker.clone(),
            publishers: Publishers::new(broker.connect("publish").await?),
            consuming: broker.connect("work").await?,
            asking: Mutex::default(),
            ended: CancellationToken::new(),
        })
    }

    /// Returns the number of the session, counted from 1. A delivery can be settled only in the session that
    /// received it.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns whether the session has not ended and both connections are open.
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
    ///
    /// If the broker closed a channel with an error, lapin keeps the error and also fails all later channels with
    /// the same number, without asking the broker (seen in 4.12.3). The numbers are used again after some 2,000
    /// channels. So such an error means that the next number must be tried. If no number is left, the session
    /// ends.
    pub async fn open_channel(&self) -> Result<Channel, AmqpError> {
        for _ in 0..MAX_CHANNELS {
            match self.step("open a channel", self.consuming.create_channel()).await {
                Err(error) if error.is_of_channel() => (),
                result => return result,
            }
        }
        self.ended.cancel();
        Err(self.broker.connection_lost("open a channel"))
    }

    /// Opens a channel for a question about a queue, which the broker may answer by closing the channel. After
    /// many such answers the connection for questions is replaced.
    pub async fn open_asking_channel(&self) -> Result<Channel, AmqpError> {
        let mut asking = self.asking.lock().await;
        if let Some(connection) = &*asking
            && connection.status().connected()
        {
            match self.step("open a channel", connection.create_channel()).await {
                Err(error) if error.is_of_channel() || error.is_channel_limit() => (),
                result => return result,
            }
        }
        let connection = asking.insert(self.broker.connect("ask").await?);
        self.step("open a channel", connection.create_channel()).await
    }

    /// Waits for one request to the broker. A timeout ends the session.
    ///
    /// `action` is the text after "cannot" in the error.
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
    /// There is no timeout: the wait ends with the confirm or with the session. A broker with an alarm
    /// confirms the message after the alarm. If a timeout made the caller publish the message again, the
    /// message would be duplicated.
    pub async fn publish(&self, publication: &Publication<'_>) -> Result<Published, AmqpError> {
        let window = std::slice::from_ref(publication);
        let confirmation = match self.confirmations(window).await {
            Ok(mut confirmations) => confirmations.pop().expect("each publish has an answer"),
            Err(None) => return Err(self.broker.connection_lost("publish")),
            Err(Some(source)) => {
                // The broker closes only the channel of a message that is too large, so the session continues.
                if let Some(reason) = too_large(&source) {
                    let (broker, routing_key) =
                        (self.broker.name().to_owned(), publication.routing_key.to_owned());
                    return Err(AmqpError::TooLarge { broker, routing_key, reason });
                }
                self.ended.cancel();
                return Err(self.broker.error("publish", source));
            }
        };
        let reason = match confirmation {
            Confirmation::Ack(None) => return Ok(Published::Confirmed),
            // The broker returns a mandatory message only with the code 312, "no route".
            Confirmation::Ack(Some(_)) => return Ok(Published::Unroutable),
            Confirmation::Nack(_) => "the broker refused the message",
            Confirmation::NotRequested => "confirms are not enabled on the channel",
        };
        Err(self.not_confirmed(publication, reason))
    }

    /// Publishes messages in order, and waits for the broker's confirms as [`Session::publish`] does. Returns for each
    /// message whether the broker confirmed it. The others may or may not be stored: publish each of them alone, which
    /// tells the reason.
    ///
    /// If the broker returned a message of the window, lapin does not tell which one (seen in 4.12.3), so none counts as
    /// confirmed. If the channel or the connection is lost, none counts as confirmed either.
    pub async fn publish_window(&self, window: &[Publication<'_>]) -> Vec<bool> {
        let Ok(confirmations) = self.confirmations(window).await else {
            return vec![false; window.len()];
        };
        let is_returned = |answer: &Confirmation| {
            matches!(answer, Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)))
        };
        let has_returned = confirmations.iter().any(is_returned);
        let is_confirmed =
            |answer: &Confirmation| !has_returned && matches!(answer, Confirmation::Ack(None));
        confirmations.iter().map(is_confirmed).collect()
    }

    /// Publishes messages, and returns the broker's answers. `None` as the error means that the session has ended.
    async fn confirmations(
        &self,
        window: &[Publication<'_>],
    ) -> Result<Vec<Confirmation>, Option<lapin::Error>> {
        tokio::select! {
            confirmations = self.publishers.publish(window) => confirmations.map_err(Some),
            () = self.ended.cancelled() => Err(None),
        }
    }

    fn not_confirmed(&self, publication: &Publication<'_>, reason: &str) -> AmqpError {
        AmqpError::NotConfirmed {
            broker: self.broker.name().to_owned(),
            routing_key: publication.routing_key.to_owned(),
            reason: reason.to_owned(),
        }
    }

    /// Returns whether the broker blocks publishers because of an alarm.
    pub(crate) fn is_blocked(&self) -> bool {
        self.publishers.is_blocked()
    }

    /// Returns whether a publish has waited for its confirm longer than
    /// [`STEP_TIMEOUT`](crate::STEP_TIMEOUT).
    pub(crate) fn is_stalled(&self) -> bool {
        self.publishers.is_stalled()
    }

    /// Checks the connections regularly, and returns when the session has ended.
    pub(crate) async fn watch(&self) {
        while self.is_up() {
            tokio::select! {
                () = tokio::time::sleep(CHECK_INTERVAL) => (),
                () = self.ended.cancelled() => (),
            }
        }
        self.ended.cancel();
    }

    /// Closes the open connections. Gives up after [`CLOSE_TIMEOUT`].
    pub(crate) async fn close(&self) {
        let reason = ShortString::from("the session has ended");
        let all = async {
            if let Some(asking) = self.asking.lock().await.take() {
                drop(asking.close(200, reason.clone()).await);
            }
            tokio::join!(self.consuming.close(200, reason), self.publishers.close())
        };
        // The result is ignored, because the connections of this session are not used again.
        drop(tokio::time::timeout(CLOSE_TIMEOUT, all).await);
    }
}

/// Returns the broker's text if the broker refused a message because of its size.
///
/// The broker closes the channel with the code 406 if a message exceeds `max_message_size` (RabbitMQ,
/// `rabbit_channel:check_msg_size`). The default limit is 16 MiB since 4.0, and was 128 MiB before.
fn too_large(error: &lapin::Error) -> Option<String> {
    let ErrorKind::ProtocolError(refusal) = error.kind() else { return None };
    let is_size = matches!(refusal.kind(), AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED))
        && refusal.get_message().as_str().contains("message size");
    is_size.then(|| refusal.get_message().to_string())
}
