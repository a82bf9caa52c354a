//! The queues in RabbitMQ.
//!
//! Owns what an entry's way between the queues on the broker is: a copy is published and confirmed
//! where it goes to, and only then the old one acknowledged, so that a crash in between makes two of
//! it and never none. Which queues there are is in `topology`, the connections are in `session`.
//!
//! Each worker has a channel of its own, so that what happens to one delivery is not done to its
//! neighbours.

mod ack_timeout;
mod broker;
mod bus;
mod consumer;
mod dead_letters;
mod entry;
mod exchange;
mod held;
mod plan;
mod session;
mod standing;
mod table;
mod tls;
mod topology;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicRejectOptions};
use lapin::types::AMQPValue;
use loopabull_model::{Entry, QueueName, Reason, Settlement, TaskName};
use tokio::sync::{Mutex, Notify};

use crate::delivery::Tag;
use crate::{Config, Delivery, Depth, Foreign, Place, QueueConfig, QueueError};
use broker::{Broker, Version};
use entry::Outgoing;
use session::{Published, Supervisor};
use topology::Station;

pub use ack_timeout::{AckTimeout, AckTimeoutSource};
pub use bus::{
    Answered, Argument, Binding, Bus, BusBodyError, BusConfig, BusDelivery, BusFileError, BusLink,
    BusQueue, BusState, TlsFiles,
};
pub(crate) use consumer::Consumer;
pub use exchange::Exchange;
pub use plan::{Change, Plan};
pub use standing::Standing;
pub use tls::TlsError;
pub(crate) use topology::DELIVERY_LIMIT;

/// What the broker delivered, as lapin hands it over.
type Raw = lapin::message::Delivery;

/// A lock for each task of a queue.
type Turns = BTreeMap<(QueueName, TaskName), Arc<Mutex<()>>>;

/// The queues in RabbitMQ.
#[derive(Debug)]
pub struct Amqp {
    broker: Broker,
    version: Option<Version>,
    configs: Vec<QueueConfig>,
    prefetch: u16,
    management: Option<String>,
    stated_ack_timeout: Option<Duration>,
    supervisor: Supervisor,
    /// The queues that we know to stand on the broker just as we declare them.
    as_declared: StdMutex<BTreeSet<QueueName>>,
    /// Tasks that have a queue for what is held.
    held: StdMutex<BTreeSet<(QueueName, TaskName)>>,
    /// Tasks whose held entries are being worked. The lock of each keeps an entry that comes while the
    /// last held one is taken from being left behind.
    releasing: StdMutex<Turns>,
    released: Notify,
    /// What keeps a queue from being consumed.
    troubles: StdMutex<BTreeMap<QueueName, String>>,
}

/// A delivery that the broker waits to hear of.
#[derive(Debug)]
pub(crate) struct Claim {
    /// Of the session that it came by.
    generation: u64,
    /// The channel by which it was taken from what is held, open until it is settled.
    held_on: Option<Channel>,
    raw: Box<Raw>,
}

impl Amqp {
    pub(crate) async fn open(config: &Config) -> Result<Arc<Self>, QueueError> {
        let amqp = Self::connect(config).await?;
        let session = amqp.supervisor.session().await?;
        for queue in &config.queues {
            for station in Station::always() {
                amqp.declare(&session, &queue.name, &station).await?;
            }
        }
        drop(session);
        Ok(Arc::new(amqp))
    }

    pub(crate) async fn connect(config: &Config) -> Result<Self, QueueError> {
        let Place::Amqp { url, prefetch, management, ack_timeout } = &config.place else {
            unreachable!("the caller looked at the place");
        };
        let broker = Broker::new(url)?;
        let amqp = Self {
            supervisor: Supervisor::start(broker.clone()).await?,
            version: broker.version().await,
            broker,
            configs: config.queues.clone(),
            prefetch: *prefetch,
            management: management.clone(),
            stated_ack_timeout: *ack_timeout,
            as_declared: StdMutex::default(),
            held: StdMutex::default(),
            releasing: StdMutex::default(),
            released: Notify::new(),
            troubles: StdMutex::default(),
        };
        let session = amqp.supervisor.session().await?;
        for queue in &amqp.configs {
            for task in &queue.tasks {
                let held = Station::Held(task.clone());
                if amqp.count(&session, &queue.name, &held).await?.is_some() {
                    amqp.note_held(&queue.name, task);
                }
            }
        }
        Ok(amqp)
    }

    pub(crate) async fn publish(&self, entry: &Entry) -> Result<(), QueueError> {
        self.send(&Outgoing::new(entry)).await
    }

    pub(crate) async fn settle(
        &self,
        delivery: &Delivery,
        settlement: &Settlement,
    ) -> Result<(), QueueError> {
        let lost = || QueueError::LostClaim { message: delivery.entry.message.id.to_string() };
        let attempts = delivery.attempts_after(settlement);
        if !self.is_valid(&delivery.tag).await {
            return Err(lost());
        }
        let copy = match settlement {
            Settlement::Ack => None,
            Settlement::Retry { after } => Some(Outgoing::later(delivery, attempts, *after)),
            Settlement::GiveBack { after } if !after.is_zero() => {
                Some(Outgoing::later(delivery, attempts, *after))
            }
            // To its place. The broker counts that towards its limit, which is far.
            Settlement::GiveBack { .. } => return self.reject(&delivery.tag).await,
            Settlement::DeadLetter { reason, output } => {
                let copy = Outgoing::again(delivery, Station::Dead, attempts);
                Some(copy.buried(reason, output))
            }
            // Its task was paused again: the others of it stay where they are, too.
            Settlement::Hold if claim(&delivery.tag).held_on.is_some() => {
                let key = (delivery.entry.queue.clone(), delivery.entry.task.clone());
                lock(&self.releasing).remove(&key);
                return self.reject(&delivery.tag).await;
            }
            Settlement::Hold => {
                let station = Station::Held(delivery.entry.task.clone());
                self.note_held(&delivery.entry.queue, &delivery.entry.task);
                Some(Outgoing::again(delivery, station, attempts))
            }
        };
        if let Some(copy) = copy {
            self.send(&copy).await?;
            if let Station::Held(task) = &copy.station {
                // Again: whoever found none meanwhile has forgotten of it.
                self.note_held(&copy.queue, task);
            }
        }
        if self.acknowledge(&delivery.tag).await? { Ok(()) } else { Err(lost()) }
    }

    pub(crate) async fn replace(
        &self,
        foreign: &Foreign,
        entries: &[Entry],
    ) -> Result<(), QueueError> {
        for entry in entries {
            self.publish(entry).await?;
        }
        self.acknowledge(&foreign.tag).await.map(|_| ())
    }

    pub(crate) async fn refuse(
        &self,
        queue: &QueueName,
        foreign: &Foreign,
        reason: &Reason,
    ) -> Result<(), QueueError> {
        self.bury(queue, &foreign.tag, reason).await
    }

    pub(crate) async fn depth(&self, queue: &QueueName) -> Result<Depth, QueueError> {
        let session = self.supervisor.session().await?;
        let mut depth = Depth::default();
        for station in Station::always() {
            let count = self.count(&session, queue, &station).await?.unwrap_or(0);
            match station {
                Station::Work => depth.waiting += count,
                Station::Dead => depth.dead += count,
                Station::Wait(_) | Station::Held(_) => depth.later += count,
            }
        }
        let held = lock(&self.held).clone();
        for (_, task) in held.into_iter().filter(|(of, _)| of == queue) {
            depth.held += self.count(&session, queue, &Station::Held(task)).await?.unwrap_or(0);
        }
        Ok(depth)
    }

    pub(crate) fn trouble(&self) -> Option<String> {
        if let Some(trouble) = self.supervisor.trouble() {
            return Some(format!("RabbitMQ at `{}`: {trouble}", self.broker.name));
        }
        let troubles = lock(&self.troubles);
        let (queue, trouble) = troubles.first_key_value()?;
        Some(format!("queue `{queue}` is not consumed: {trouble}"))
    }

    /// Notes what keeps a queue from being consumed, or that nothing does.
    fn set_trouble(&self, queue: &QueueName, trouble: Option<String>) {
        let mut troubles = lock(&self.troubles);
        match trouble {
            Some(trouble) => drop(troubles.insert(queue.clone(), trouble)),
            None => drop(troubles.remove(queue)),
        }
    }

    /// Publishes and waits for the confirm; makes the queue if it is gone.
    async fn send(&self, outgoing: &Outgoing) -> Result<(), QueueError> {
        for _ in 0..2 {
            let session = self.supervisor.session().await?;
            match session.publish(&outgoing.parcel()).await? {
                Published::Confirmed => return Ok(()),
                Published::NoQueue => {
                    self.declare(&session, &outgoing.queue, &outgoing.station).await?;
                }
            }
        }
        Err(QueueError::NotConfirmed {
            broker: self.broker.name.clone(),
            queue: outgoing.name.clone(),
            reason: "it is gone as soon as it is made".to_owned(),
        })
    }

    /// Acknowledges a delivery; `false` if its channel is gone and the broker delivers it again.
    async fn acknowledge(&self, tag: &Tag) -> Result<bool, QueueError> {
        if !self.is_valid(tag).await {
            return Ok(false);
        }
        let session = self.supervisor.session().await?;
        let ack = claim(tag).raw.acker.ack(BasicAckOptions::default());
        // An error is the connection's end, and `false` the channel's: in both cases it comes again.
        Ok(session.step("acknowledge", ack).await.unwrap_or(false))
    }

    /// Tells whether the channel and the session that a delivery came by are still there. One of an
    /// earlier session must not be settled: the broker has given it to somebody else by now.
    async fn is_valid(&self, tag: &Tag) -> bool {
        let claim = claim(tag);
        let session = self.supervisor.session().await;
        claim.raw.acker.usable()
            && session.is_ok_and(|session| session.generation == claim.generation)
    }

    /// Gives a delivery back to its place in the queue.
    async fn reject(&self, tag: &Tag) -> Result<(), QueueError> {
        let session = self.supervisor.session().await?;
        let back = claim(tag).raw.acker.reject(BasicRejectOptions { requeue: true });
        // Whatever goes wrong with the channel gives it back, too.
        drop(session.step("give back", back).await);
        Ok(())
    }

    /// Sets aside what cannot be read.
    async fn bury(&self, queue: &QueueName, tag: &Tag, reason: &Reason) -> Result<(), QueueError> {
        let copy = Outgoing::unread(queue, Station::Dead, &claim(tag).raw).buried(reason, "");
        self.send(&copy).await?;
        self.acknowledge(tag).await.map(|_| ())
    }

    fn config(&self, queue: &QueueName) -> QueueConfig {
        let known = self.configs.iter().find(|config| config.name == *queue);
        known.cloned().unwrap_or_else(|| QueueConfig::new(queue.clone()))
    }

    fn is_as_declared(&self, queue: &QueueName) -> bool {
        lock(&self.as_declared).contains(queue)
    }
}

fn claim(tag: &Tag) -> &Claim {
    match tag {
        Tag::Amqp(claim) => claim,
        Tag::Embedded(_) => unreachable!("a delivery is settled by the queue that made it"),
    }
}

/// Locks for a moment; nobody holds it over an `await`.
fn lock<T>(mutex: &StdMutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error with its sources, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

/// An argument of a queue, for people.
fn plain(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => format!("'{text}'"),
        AMQPValue::LongInt(number) => number.to_string(),
        AMQPValue::LongLongInt(number) => number.to_string(),
        AMQPValue::Boolean(value) => value.to_string(),
        value => format!("{value:?}"),
    }
}
