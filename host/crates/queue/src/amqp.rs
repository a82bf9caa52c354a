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
mod consumer;
mod dead_letters;
mod entry;
mod plan;
mod session;
mod topology;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicGetOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use loopabull_model::{Entry, QueueName, Reason, Settlement, TaskName};
use tokio::sync::{Mutex, Notify};

use crate::delivery::Tag;
use crate::{Config, Delivery, Depth, Foreign, Place, QueueConfig, QueueError};
use broker::{Broker, Version};
use entry::Outgoing;
use session::{Published, Session, Supervisor};
use topology::Station;

pub use ack_timeout::{AckTimeout, AckTimeoutSource};
pub(crate) use consumer::Consumer;
pub use plan::{Change, Plan, StandingOf};
pub(crate) use topology::DELIVERY_LIMIT;

/// What the broker delivered, as lapin hands it over.
type Raw = lapin::message::Delivery;

/// The AMQP reply codes "not found", "access refused" and "precondition failed".
const NOT_FOUND: u16 = 404;
const ACCESS_REFUSED: u16 = 403;
const PRECONDITION_FAILED: u16 = 406;

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
    /// Tasks whose held entries are being worked. Held over `await` on purpose: an entry that comes
    /// while the last held one is taken must be put behind it or delivered, not both.
    releasing: Mutex<BTreeSet<(QueueName, TaskName)>>,
    released: Notify,
}

/// A delivery that the broker waits to hear of.
#[derive(Debug)]
pub(crate) struct Claim {
    /// Of the session that it came by.
    generation: u64,
    raw: Box<Raw>,
}

/// How a queue on the broker stands to what we would make.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Standing {
    Missing,
    Same,
    Differs(String),
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

    async fn connect(config: &Config) -> Result<Self, QueueError> {
        let Place::Amqp { url, prefetch, management, ack_timeout } = &config.place else {
            unreachable!("the caller looked at the place");
        };
        let broker = Broker::new(url)?;
        Ok(Self {
            supervisor: Supervisor::start(broker.clone()).await?,
            version: broker.version().await,
            broker,
            configs: config.queues.clone(),
            prefetch: *prefetch,
            management: management.clone(),
            stated_ack_timeout: *ack_timeout,
            as_declared: StdMutex::default(),
            held: StdMutex::default(),
            releasing: Mutex::default(),
            released: Notify::new(),
        })
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
            Settlement::GiveBack { .. } => Some(Outgoing::again(delivery, Station::Work, attempts)),
            Settlement::DeadLetter { reason, output } => {
                let copy = Outgoing::again(delivery, Station::Dead, attempts);
                Some(copy.buried(reason, output))
            }
            Settlement::Hold => {
                let station = Station::Held(delivery.entry.task.clone());
                self.note_held(&delivery.entry.queue, &delivery.entry.task);
                Some(Outgoing::again(delivery, station, attempts))
            }
        };
        if let Some(copy) = copy {
            self.send(&copy).await?;
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
        let copy = Outgoing::unread(queue, Station::Dead, foreign.raw()).buried(reason, "");
        self.send(&copy).await?;
        self.acknowledge(&foreign.tag).await.map(|_| ())
    }

    pub(crate) async fn release(
        &self,
        queue: &QueueName,
        task: &TaskName,
    ) -> Result<(), QueueError> {
        let session = self.supervisor.session().await?;
        if self.count(&session, queue, &Station::Held(task.clone())).await?.is_some() {
            self.note_held(queue, task);
            self.releasing.lock().await.insert((queue.clone(), task.clone()));
            self.released.notify_waiters();
        }
        Ok(())
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
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (_, task) in held.into_iter().filter(|(of, _)| of == queue) {
            depth.held += self.count(&session, queue, &Station::Held(task)).await?.unwrap_or(0);
        }
        Ok(depth)
    }

    pub(crate) fn trouble(&self) -> Option<String> {
        let trouble = self.supervisor.trouble()?;
        Some(format!("RabbitMQ at `{}`: {trouble}", self.broker.name))
    }

    /// Publishes and waits for the confirm; makes the queue if it is gone.
    async fn send(&self, outgoing: &Outgoing) -> Result<(), QueueError> {
        for _ in 0..2 {
            let session = self.supervisor.session().await?;
            match session.publish(outgoing).await? {
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

    /// Sets aside an entry of ours that cannot be read.
    async fn bury(
        &self,
        queue: &QueueName,
        claim: &Claim,
        reason: &Reason,
    ) -> Result<(), QueueError> {
        self.send(&Outgoing::unread(queue, Station::Dead, &claim.raw).buried(reason, "")).await?;
        let session = self.supervisor.session().await?;
        if session.generation == claim.generation {
            let ack = claim.raw.acker.ack(BasicAckOptions::default());
            session.step("acknowledge", ack).await?;
        }
        Ok(())
    }

    /// Puts an entry behind those of its task that were held, if they are being worked now.
    async fn hold_back(&self, delivery: &Delivery) -> Result<bool, QueueError> {
        let Entry { queue, task, .. } = &delivery.entry;
        let releasing = self.releasing.lock().await;
        if !releasing.contains(&(queue.clone(), task.clone())) {
            return Ok(false);
        }
        self.settle(delivery, &Settlement::Hold).await?;
        Ok(true)
    }

    /// Takes the next entry of a task that was resumed, if there is one.
    async fn next_released(
        &self,
        session: &Session,
        channel: &Channel,
        queue: &QueueName,
    ) -> Result<Option<Raw>, QueueError> {
        let mut releasing = self.releasing.lock().await;
        while let Some(next) = releasing.iter().find(|(of, _)| of == queue).cloned() {
            let name = Station::Held(next.1.clone()).name(queue);
            let get = channel.basic_get(ShortString::from(name), BasicGetOptions { no_ack: false });
            match session.step("get what was held", get).await {
                Ok(Some(got)) => return Ok(Some(got.delivery)),
                Ok(None) => {
                    releasing.remove(&next);
                }
                Err(error) => {
                    if reply_code(&error) == Some(NOT_FOUND) {
                        releasing.remove(&next);
                    }
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    /// Makes a queue on the broker, unless it is there, with whatever arguments.
    async fn declare(
        &self,
        session: &Session,
        queue: &QueueName,
        station: &Station,
    ) -> Result<(), QueueError> {
        let name = station.name(queue);
        match self.stand(session, queue, station).await? {
            Standing::Missing => {
                let arguments = station.arguments(&self.config(queue), self.version);
                let channel = session.channel().await?;
                let declare =
                    channel.queue_declare(name.into(), QueueDeclareOptions::durable(), arguments);
                session.step("declare the queue", declare).await?;
            }
            Standing::Same => (),
            Standing::Differs(reason) => {
                tracing::warn!(
                    "queue `{name}` is not as we would make it, and is used as it is; \
                     `loopabull-host broker plan` tells more: {reason}"
                );
                return Ok(());
            }
        }
        if *station == Station::Work {
            let mut known = self.as_declared.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(queue.clone());
        }
        Ok(())
    }

    /// Makes a queue on the broker if it is missing, and compares nothing.
    async fn make_sure_of(
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
    async fn stand(
        &self,
        session: &Session,
        queue: &QueueName,
        station: &Station,
    ) -> Result<Standing, QueueError> {
        if self.count(session, queue, station).await?.is_none() {
            return Ok(Standing::Missing);
        }
        let channel = session.channel().await?;
        let arguments = station.arguments(&self.config(queue), self.version);
        let name = ShortString::from(station.name(queue));
        let declare = channel.queue_declare(name, QueueDeclareOptions::durable(), arguments);
        match session.step("compare the queue", declare).await {
            Ok(_) => Ok(Standing::Same),
            Err(error) => match reply_code(&error) {
                Some(PRECONDITION_FAILED | ACCESS_REFUSED) => Ok(Standing::Differs(chain(&error))),
                _ => Err(error),
            },
        }
    }

    /// Returns how many entries wait in a queue on the broker; none if there is no such queue.
    async fn count(
        &self,
        session: &Session,
        queue: &QueueName,
        station: &Station,
    ) -> Result<Option<u64>, QueueError> {
        let channel = session.channel().await?;
        match self.look_at(session, &channel, &station.name(queue)).await {
            Ok(count) => Ok(Some(count)),
            Err(error) if reply_code(&error) == Some(NOT_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns how many entries wait in a queue on the broker that must be there.
    async fn look_at(
        &self,
        session: &Session,
        channel: &Channel,
        name: &str,
    ) -> Result<u64, QueueError> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declare = channel.queue_declare(name.into(), passive, FieldTable::default());
        Ok(session.step("look at the queue", declare).await?.message_count().into())
    }

    fn config(&self, queue: &QueueName) -> QueueConfig {
        let known = self.configs.iter().find(|config| config.name == *queue);
        known.cloned().unwrap_or_else(|| QueueConfig::new(queue.clone()))
    }

    fn is_as_declared(&self, queue: &QueueName) -> bool {
        self.as_declared.lock().unwrap_or_else(PoisonError::into_inner).contains(queue)
    }

    fn note_held(&self, queue: &QueueName, task: &TaskName) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.insert((queue.clone(), task.clone()));
    }
}

impl Foreign {
    fn raw(&self) -> &Raw {
        &claim(&self.tag).raw
    }
}

fn claim(tag: &Tag) -> &Claim {
    match tag {
        Tag::Amqp(claim) => claim,
        Tag::Embedded(_) => unreachable!("a delivery is settled by the queue that made it"),
    }
}

/// Returns the reply code by which the broker refused something.
fn reply_code(error: &QueueError) -> Option<u16> {
    let QueueError::Amqp { source, .. } = error else { return None };
    match source.kind() {
        lapin::ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
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
