//! The session: the connections to the broker, watched and made anew for ever.
//!
//! One connection publishes and another consumes, because a broker that is short of memory or disk
//! stops reading from publishers, and acknowledgements must still get through. Whatever goes wrong
//! with one of the two ends the session: nothing of it is used again, and the supervisor makes the
//! next one, with a higher generation. Lapin's own recovery is not used: it forgets the prefetch and
//! gives up.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ErrorKind};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::broker::{Broker, PATIENCE};
use crate::{Backoff, QueueError};

/// How often the supervisor looks whether the connections live.
const TICK: Duration = Duration::from_millis(200);
/// How many channels publish at the most.
const PUBLISHERS: usize = 32;
/// How long a session must have lived for the next one to be made at once.
const SOLID: Duration = Duration::from_secs(30);
/// How long a channel is used after a broker first refused something on it. A channel that was told that a
/// quorum queue is full does not hear of the limit being taken away (seen on 3.10.8); each new one may put
/// one message beyond a limit.
const REFUSED: Duration = Duration::from_mins(1);
/// How long a session that ended may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// The connections to the broker, from one loss to the next.
#[derive(Debug)]
pub(super) struct Session {
    /// Counts the sessions.
    pub(super) generation: u64,
    broker: Broker,
    publishing: Connection,
    consuming: Connection,
    /// Channels with confirms that nobody publishes on.
    idle: Mutex<Vec<Publisher>>,
    /// How many may publish at a time.
    publishers: Semaphore,
    /// How many have waited long for a confirm.
    stalled: AtomicUsize,
    ended: CancellationToken,
}

/// A channel with confirms.
#[derive(Debug)]
struct Publisher {
    channel: Channel,
    /// When the broker first refused something on it.
    refused_at: Option<Instant>,
}

/// Something to publish.
#[derive(Debug)]
pub(super) struct Parcel<'a> {
    /// Empty for the default exchange, whose routing keys are the names of queues.
    pub(super) exchange: &'a str,
    pub(super) routing_key: &'a str,
    pub(super) body: &'a [u8],
    pub(super) properties: BasicProperties,
    pub(super) options: BasicPublishOptions,
}

/// What became of something published.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Published {
    /// The broker has it.
    Confirmed,
    /// There is no such queue.
    NoQueue,
}

/// Keeps a session.
#[derive(Debug)]
pub(super) struct Supervisor {
    broker: Broker,
    state: watch::Receiver<State>,
    /// Aborted when this is dropped.
    _task: JoinSet<()>,
}

#[derive(Clone, Debug)]
enum State {
    Up(Arc<Session>),
    Down(String),
}

impl Supervisor {
    /// Makes the first session, and sees to the others.
    pub(super) async fn start(broker: Broker) -> Result<Self, QueueError> {
        let first = Arc::new(Session::start(&broker, 1).await?);
        let (sender, state) = watch::channel(State::Up(Arc::clone(&first)));
        let mut task = JoinSet::new();
        task.spawn(keep(broker.clone(), first, sender));
        Ok(Self { broker, state, _task: task })
    }

    /// Returns the present session, and waits a while for it if there is none.
    pub(super) async fn session(&self) -> Result<Arc<Session>, QueueError> {
        let mut state = self.state.clone();
        let is_up = |state: &State| matches!(state, State::Up(session) if session.is_up());
        let up = tokio::time::timeout(PATIENCE, state.wait_for(is_up)).await;
        if let Ok(Ok(state)) = up
            && let State::Up(session) = &*state
        {
            return Ok(Arc::clone(session));
        }
        let reason = match &*self.state.borrow() {
            State::Down(reason) => reason.clone(),
            State::Up(_) => "the connection was lost".to_owned(),
        };
        Err(QueueError::Away { broker: self.broker.name.clone(), reason })
    }

    /// Tells what is wrong with the connections, if anything is.
    pub(super) fn trouble(&self) -> Option<String> {
        match &*self.state.borrow() {
            State::Down(reason) => Some(format!("not connected: {reason}")),
            State::Up(session) if session.is_blocked() => {
                Some("takes no messages: memory or disk alarm".to_owned())
            }
            State::Up(session) if session.stalled.load(Ordering::Relaxed) > 0 => {
                Some(format!("has not confirmed a message for {} s", PATIENCE.as_secs()))
            }
            State::Up(_) => None,
        }
    }
}

/// Watches a session until it ends, then makes the next one, for ever.
async fn keep(broker: Broker, mut session: Arc<Session>, state: watch::Sender<State>) {
    let never = CancellationToken::new();
    let mut backoff = Backoff::default();
    let mut generation = session.generation;
    loop {
        let since = Instant::now();
        session.watch().await;
        if since.elapsed() >= SOLID {
            backoff.reset();
        }
        tracing::warn!("RabbitMQ at `{}`: the connection was lost, connecting again", broker.name);
        state.send_replace(State::Down("the connection was lost".to_owned()));
        session.close().await;
        session = loop {
            backoff.pause(&never).await;
            generation += 1;
            match Session::start(&broker, generation).await {
                Ok(session) => break Arc::new(session),
                Err(error) => {
                    let reason = crate::amqp::chain(&error);
                    tracing::warn!("{reason}, trying again");
                    state.send_replace(State::Down(reason));
                }
            }
        };
        tracing::info!("RabbitMQ at `{}`: connected again", broker.name);
        state.send_replace(State::Up(Arc::clone(&session)));
    }
}

impl Session {
    async fn start(broker: &Broker, generation: u64) -> Result<Self, QueueError> {
        let publishing = broker.connect("publish").await?;
        let consuming = broker.connect("work").await?;
        Ok(Self {
            generation,
            broker: broker.clone(),
            publishing,
            consuming,
            idle: Mutex::default(),
            publishers: Semaphore::new(PUBLISHERS),
            stalled: AtomicUsize::new(0),
            ended: CancellationToken::new(),
        })
    }

    /// Tells whether it is worth a try.
    pub(super) fn is_up(&self) -> bool {
        !self.ended.is_cancelled()
            && self.publishing.status().connected()
            && self.consuming.status().connected()
    }

    /// Tells whether the broker has stopped reading from publishers.
    pub(super) fn is_blocked(&self) -> bool {
        self.publishing.status().blocked()
    }

    /// Ends the session: something is wrong that may be the connections' fault.
    pub(super) fn end(&self) {
        self.ended.cancel();
    }

    /// Returns once the session is over.
    pub(super) async fn over(&self) {
        self.ended.cancelled().await;
    }

    /// Opens a channel on the consuming connection.
    pub(super) async fn channel(&self) -> Result<Channel, QueueError> {
        self.step("open a channel", self.consuming.create_channel()).await
    }

    /// Waits for a step on the broker. One that is not answered in time ends the session.
    pub(super) async fn step<T>(
        &self,
        action: &'static str,
        step: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, QueueError> {
        let result = tokio::select! {
            result = self.broker.wait(action, step) => result,
            () = self.ended.cancelled() => return Err(self.broker.lost(action)),
        };
        if matches!(result, Err(QueueError::Timeout { .. })) {
            self.end();
        }
        result
    }

    /// Publishes and waits for the broker's word, on a channel that nobody else publishes on
    /// meanwhile: lapin can give one publish the confirm, or the return, of another on its channel.
    ///
    /// The wait has no limit but the session's: a broker with an alarm takes what we sent when the
    /// alarm is over, and whoever had sent it again by then would have made two of it.
    pub(super) async fn publish(&self, parcel: &Parcel<'_>) -> Result<Published, QueueError> {
        let publish = async {
            let _permit = self.publishers.acquire().await.expect("it is never closed");
            while self.is_blocked() {
                tokio::time::sleep(TICK).await;
            }
            let publish = async {
                let mut publisher = self.publisher().await?;
                let confirmation = send(&publisher.channel, parcel).await?;
                if matches!(confirmation, Confirmation::Nack(_)) {
                    publisher.refused_at.get_or_insert_with(Instant::now);
                }
                self.idle_channels().push(publisher);
                Ok(confirmation)
            };
            let published = self.wait_for_confirm(publish).await;
            published.map_err(|error| self.broker.error("publish", error))
        };
        let confirmation = tokio::select! {
            confirmation = publish => confirmation,
            () = self.ended.cancelled() => return Err(self.broker.lost("publish")),
        };
        let reason = match confirmation {
            Ok(Confirmation::Ack(None)) => return Ok(Published::Confirmed),
            // 312, "no route": the one thing for which a mandatory message comes back.
            Ok(Confirmation::Ack(Some(_))) => return Ok(Published::NoQueue),
            Ok(Confirmation::Nack(_)) => "it was refused".to_owned(),
            Ok(Confirmation::NotRequested) => "confirms are off".to_owned(),
            Err(error) => match too_large(&error) {
                // Its channel is closed, and nothing else.
                Some(reason) => {
                    let (broker, queue) = (self.broker.name.clone(), parcel.routing_key.to_owned());
                    return Err(QueueError::Unacceptable { broker, queue, reason });
                }
                None => {
                    self.end();
                    return Err(error);
                }
            },
        };
        let (broker, queue) = (self.broker.name.clone(), parcel.routing_key.to_owned());
        Err(QueueError::NotConfirmed { broker, queue, reason })
    }

    /// Returns a channel that nobody publishes on. Not limited in time, as little as what is published on
    /// it: a broker with an alarm does not read what it is asked either.
    async fn publisher(&self) -> lapin::Result<Publisher> {
        let idle = self.idle_channels().pop();
        if let Some(publisher) = idle.filter(|idle| idle.channel.status().connected()) {
            if publisher.refused_at.is_none_or(|refused| refused.elapsed() < REFUSED) {
                return Ok(publisher);
            }
            publisher.channel.close(200, ShortString::from("it was refused for long")).await?;
        }
        let channel = self.publishing.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Publisher { channel, refused_at: None })
    }

    /// Waits, and counts among the stalled after a while.
    async fn wait_for_confirm(
        &self,
        confirm: impl Future<Output = lapin::Result<Confirmation>>,
    ) -> lapin::Result<Confirmation> {
        tokio::pin!(confirm);
        if let Ok(confirmation) = tokio::time::timeout(PATIENCE, &mut confirm).await {
            return confirmation;
        }
        let _stalled = Stalled::count(&self.stalled);
        confirm.await
    }

    fn idle_channels(&self) -> MutexGuard<'_, Vec<Publisher>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches the connections, and returns once the session is over.
    async fn watch(&self) {
        while self.is_up() {
            tokio::select! {
                () = tokio::time::sleep(TICK) => (),
                () = self.ended.cancelled() => (),
            }
        }
        self.ended.cancel();
    }

    /// Closes what is still open; a connection that leads nowhere is not waited for.
    async fn close(&self) {
        let goodbye = || ShortString::from("the session is over");
        let both = async {
            tokio::join!(
                self.consuming.close(200, goodbye()),
                self.publishing.close(200, goodbye())
            )
        };
        // Whether it works does not matter: nothing of it is used again.
        drop(tokio::time::timeout(GOODBYE, both).await);
    }
}

/// Returns what a broker says of a message that is larger than its `max_message_size`: 406, and the end of
/// the channel (RabbitMQ, `rabbit_channel:check_msg_size`; 16 MiB by default from 4.0 on, 128 MiB before).
fn too_large(error: &QueueError) -> Option<String> {
    let QueueError::Amqp { source, .. } = error else { return None };
    let ErrorKind::ProtocolError(refusal) = source.kind() else { return None };
    let is_size = matches!(refusal.kind(), AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED))
        && refusal.get_message().as_str().contains("message size");
    is_size.then(|| refusal.get_message().to_string())
}

async fn send(channel: &Channel, parcel: &Parcel<'_>) -> lapin::Result<Confirmation> {
    let [exchange, key] = [parcel.exchange, parcel.routing_key].map(ShortString::from);
    let properties = parcel.properties.clone();
    channel.basic_publish(exchange, key, parcel.options, parcel.body, properties).await?.await
}

/// One that has waited long, until this is dropped.
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
