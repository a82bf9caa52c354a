//! Publishing with the broker's confirms, over a pool of channels of one connection.
//!
//! Each publish has a channel for itself until its confirm arrives, and so has each window of messages. If two publishes
//! shared a channel, lapin could mix up their confirms. Within a window it gives a returned message to the confirm that comes
//! next, whichever that is; the caller must take care of that.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::protocol::AMQPErrorKind;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ErrorKind, PublisherConfirm};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::broker::STEP_TIMEOUT;

/// Maximum number of windows at the same time, each on its own channel.
const MAX_CHANNELS: usize = 32;
/// Number of channels that a connection has at most, unless the broker is configured otherwise (`channel_max`).
const MAX_NUMBERS: u32 = 2047;
/// Interval at which a blocked publish checks whether the broker accepts messages again.
const BLOCKED_POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Time for which a channel is used after the broker first refused a message on it.
///
/// If a quorum queue is full, the broker refuses messages for it. On the same channel, the broker keeps
/// refusing them even after the queue's limit was removed (seen on 3.10.8). So the channel must be replaced.
/// It is not replaced at once, because the broker may accept a window of messages beyond the limit on each new
/// channel.
const REFUSED_CHANNEL_LIFETIME: Duration = Duration::from_mins(1);

/// A message to publish.
#[derive(Debug)]
pub struct Publication<'a> {
    /// Name of the exchange. It is empty for the default exchange, whose routing keys are queue names.
    pub exchange: &'a str,
    pub routing_key: &'a str,
    pub body: &'a [u8],
    pub properties: BasicProperties,
    pub options: BasicPublishOptions,
}

impl Publication<'_> {
    fn to_parts(
        &self,
    ) -> (ShortString, ShortString, Vec<u8>, BasicProperties, BasicPublishOptions) {
        let Self { exchange, routing_key, body, properties, options } = self;
        let [exchange, key] = [*exchange, *routing_key].map(ShortString::from);
        (exchange, key, body.to_vec(), properties.clone(), *options)
    }
}

/// The broker's answer to a publish.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Published {
    /// The broker confirmed the message.
    Confirmed,
    /// The broker returned the message, because it was mandatory and no queue is bound to its routing key.
    Unroutable,
}

/// The connection for publishing, and its channels.
#[derive(Debug)]
pub(crate) struct Publishers {
    connection: Connection,
    /// Idle channels with confirms.
    idle: Mutex<Vec<ConfirmChannel>>,
    permits: Semaphore,
    /// Number of publishes that have waited for their confirm longer than [`STEP_TIMEOUT`].
    stalled: AtomicUsize,
}

/// A channel with confirms.
#[derive(Debug)]
struct ConfirmChannel {
    channel: Channel,
    /// Time at which the broker first refused a message on the channel.
    refused_at: Option<Instant>,
}

impl Publishers {
    pub(crate) fn new(connection: Connection) -> Self {
        Self {
            connection,
            idle: Mutex::default(),
            permits: Semaphore::new(MAX_CHANNELS),
            stalled: AtomicUsize::new(0),
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connection.status().connected()
    }

    /// Returns whether the broker blocks publishers because of an alarm.
    pub(crate) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Returns whether a publish has waited for its confirm longer than [`STEP_TIMEOUT`].
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed) > 0
    }

    /// Publishes a window of messages, in order, and waits for the broker's answers, without a time limit.
    pub(crate) async fn publish(
        &self,
        window: &[Publication<'_>],
    ) -> lapin::Result<Vec<Confirmation>> {
        let _permit = self.permits.acquire().await.expect("the semaphore is never closed");
        while self.is_blocked() {
            tokio::time::sleep(BLOCKED_POLL_INTERVAL).await;
        }
        let publish = async {
            let mut channel = self.confirm_channel().await?;
            let confirmations = send(&channel.channel, window).await?;
            if confirmations.iter().any(|answer| matches!(answer, Confirmation::Nack(_))) {
                channel.refused_at.get_or_insert_with(Instant::now);
            }
            self.idle.lock().push(channel);
            Ok(confirmations)
        };
        tokio::pin!(publish);
        if let Ok(confirmation) = tokio::time::timeout(STEP_TIMEOUT, &mut publish).await {
            return confirmation;
        }
        let _stalled = Stalled::count(&self.stalled);
        publish.await
    }

    pub(crate) async fn close(&self) -> lapin::Result<()> {
        self.connection.close(200, ShortString::from("the session has ended")).await
    }

    /// Returns an idle channel, or opens a new channel. Opening has no timeout, because a broker with an
    /// alarm does not answer on this connection before the alarm ends.
    async fn confirm_channel(&self) -> lapin::Result<ConfirmChannel> {
        let idle = self.idle.lock().pop();
        if let Some(idle) = idle.filter(|idle| idle.channel.status().connected()) {
            let is_fresh = |refused: Instant| refused.elapsed() < REFUSED_CHANNEL_LIFETIME;
            if idle.refused_at.is_none_or(is_fresh) {
                return Ok(idle);
            }
            let reason = ShortString::from("messages were refused on this channel for too long");
            idle.channel.close(200, reason).await?;
        }
        for _ in 0..MAX_NUMBERS {
            match self.connection.create_channel().await {
                Ok(channel) => {
                    channel.confirm_select(ConfirmSelectOptions::default()).await?;
                    return Ok(ConfirmChannel { channel, refused_at: None });
                }
                // lapin fails each channel whose number had such an error before.
                Err(error) if is_of_channel(&error) => (),
                Err(error) => return Err(error),
            }
        }
        Err(ErrorKind::ChannelsLimitReached.into())
    }
}

/// Sends a window, and waits for the confirms.
///
/// The window is written by a task of its own, which goes on if the caller waits no longer: lapin would close the channel
/// before it sends the rest, and the broker closes the whole connection for that.
async fn send(channel: &Channel, window: &[Publication<'_>]) -> lapin::Result<Vec<Confirmation>> {
    let messages: Vec<_> = window.iter().map(Publication::to_parts).collect();
    let channel = channel.clone();
    let written = tokio::spawn(async move {
        let mut sent = Vec::with_capacity(messages.len());
        for (exchange, key, body, properties, options) in messages {
            sent.push(channel.basic_publish(exchange, key, options, &body, properties).await?);
        }
        Ok(sent)
    });
    // The task ends early only with the runtime.
    let written: lapin::Result<Vec<PublisherConfirm>> =
        written.await.unwrap_or_else(|ended| Err(io::Error::other(ended).into()));
    let sent = written?;
    let mut confirmations = Vec::with_capacity(sent.len());
    for confirm in sent {
        confirmations.push(confirm.await?);
    }
    Ok(confirmations)
}

/// Returns whether the broker closed a channel, and not the connection, with this error.
fn is_of_channel(error: &lapin::Error) -> bool {
    let ErrorKind::ProtocolError(error) = error.kind() else { return false };
    matches!(error.kind(), AMQPErrorKind::Soft(_))
}

/// Counts one stalled publish, until this guard is dropped.
struct Stalled<'a>(&'a AtomicUsize);

impl<'a> Stalled<'a> {
    fn count(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Stalled<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
