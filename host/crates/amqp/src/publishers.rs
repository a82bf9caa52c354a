//! Publishing with confirms, over a pool of channels of one connection.
//!
//! Each publish has a channel to itself until its confirm arrives, because lapin can give one publish
//! the confirm, or the return, of another publish on the same channel.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::broker::STEP_TIMEOUT;

/// How many channels publish at the same time at most.
const MAX_CHANNELS: usize = 32;
/// How often a blocked publish checks whether the broker reads from publishers again.
const BLOCKED_POLL_INTERVAL: Duration = Duration::from_millis(200);
/// How long a channel is used after the broker first refused a message on it. A channel that was told
/// that a quorum queue is full does not learn that the limit was removed (seen on 3.10.8). Each new
/// channel may put one message beyond a limit.
const REFUSED_CHANNEL_LIFETIME: Duration = Duration::from_mins(1);

/// A message to publish.
#[derive(Debug)]
pub struct Publication<'a> {
    /// Empty for the default exchange, whose routing keys are queue names.
    pub exchange: &'a str,
    pub routing_key: &'a str,
    pub body: &'a [u8],
    pub properties: BasicProperties,
    pub options: BasicPublishOptions,
}

/// The result of a publish that the broker answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Published {
    /// The broker took responsibility for the message.
    Confirmed,
    /// The message was mandatory and no queue is bound to its routing key.
    Unroutable,
}

/// The publishing connection and its channels.
#[derive(Debug)]
pub(crate) struct Publishers {
    connection: Connection,
    /// Channels with confirms that are not in use.
    idle: Mutex<Vec<ConfirmChannel>>,
    permits: Semaphore,
    /// How many publishes have waited for a confirm longer than [`STEP_TIMEOUT`].
    stalled: AtomicUsize,
}

/// A channel with confirms.
#[derive(Debug)]
struct ConfirmChannel {
    channel: Channel,
    /// When the broker first refused a message on it.
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

    /// Returns whether the broker has stopped reading from publishers.
    pub(crate) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Returns whether a publish has waited for its confirm longer than [`STEP_TIMEOUT`].
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed) > 0
    }

    /// Publishes a message and waits for the broker's answer, without a time limit.
    pub(crate) async fn publish(
        &self,
        publication: &Publication<'_>,
    ) -> lapin::Result<Confirmation> {
        let _permit = self.permits.acquire().await.expect("it is never closed");
        while self.is_blocked() {
            tokio::time::sleep(BLOCKED_POLL_INTERVAL).await;
        }
        let publish = async {
            let mut channel = self.confirm_channel().await?;
            let confirmation = send(&channel.channel, publication).await?;
            if matches!(confirmation, Confirmation::Nack(_)) {
                channel.refused_at.get_or_insert_with(Instant::now);
            }
            self.idle.lock().push(channel);
            Ok(confirmation)
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

    /// Returns an idle channel, or opens one. There is no time limit, as there is none for the confirm: a
    /// broker with an alarm does not answer on this connection either.
    async fn confirm_channel(&self) -> lapin::Result<ConfirmChannel> {
        let idle = self.idle.lock().pop();
        if let Some(idle) = idle.filter(|idle| idle.channel.status().connected()) {
            let is_fresh = |refused: Instant| refused.elapsed() < REFUSED_CHANNEL_LIFETIME;
            if idle.refused_at.is_none_or(is_fresh) {
                return Ok(idle);
            }
            let reason = ShortString::from("messages were refused on it for too long");
            idle.channel.close(200, reason).await?;
        }
        let channel = self.connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(ConfirmChannel { channel, refused_at: None })
    }
}

async fn send(channel: &Channel, publication: &Publication<'_>) -> lapin::Result<Confirmation> {
    let Publication { exchange, routing_key, body, properties, options } = publication;
    let [exchange, key] = [*exchange, *routing_key].map(ShortString::from);
    channel.basic_publish(exchange, key, *options, body, properties.clone()).await?.await
}

/// Counts a publish among the stalled ones until it is dropped.
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
