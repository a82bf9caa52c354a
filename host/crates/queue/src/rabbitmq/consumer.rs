//! A worker's consumer of one queue. It has its own channel, and opens a new channel if that one is lost.
//!
//! While the held entries of a task are being released, the consumer delivers them before later entries.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::Peekable;
use futures_util::{FutureExt, StreamExt};
use lapin::Channel;
use lapin::message::Delivery as RawDelivery;
use lapin::options::{
    BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions,
};
use lapin::types::{FieldTable, ShortString};
use loopabull_amqp::Session;
use loopabull_backoff::Backoff;
use loopabull_model::{QueueName, Settlement, chain};
use tokio_util::sync::CancellationToken;

use super::claim::Claim;
use super::external::External;
use super::incoming::{self, Incoming};
use super::release;
use super::retries::{LOOK_INTERVAL, Turns};
use super::shared::Shared;
use super::topology::QueueRole;
use crate::delivered::DeliveredEntry;
use crate::error::QueueError;

/// Once the bodies of a group of external messages have this many bytes, no further message joins it.
const GROUP_BYTES: usize = 1 << 20;
/// Time that a subscription which has begun may take after a stop.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// A worker's consumer of one queue.
#[derive(Debug)]
pub struct Consumer {
    shared: Arc<Shared>,
    queue: QueueName,
    subscription: Option<Subscription>,
    turns: Turns,
    backoff: Backoff,
    stopped: bool,
}

/// A message that was received from the broker for a worker.
#[derive(Debug)]
pub(crate) enum Received {
    Entry(Box<DeliveredEntry>, Claim),
    /// External messages, in the order of the queue.
    External(Vec<External>),
}

/// A channel, and the AMQP consumer on the channel. If the channel closes, the AMQP consumer ends as well.
#[derive(Debug)]
struct Subscription {
    session: Arc<Session>,
    channel: Channel,
    stream: Peekable<lapin::Consumer>,
    /// Time of the last delivery on the channel, or of its opening.
    used: Instant,
}

impl Consumer {
    pub(super) fn new(shared: Arc<Shared>, queue: &QueueName) -> Self {
        let (queue, backoff) = (queue.clone(), Backoff::default());
        Self { shared, queue, subscription: None, turns: Turns::default(), backoff, stopped: false }
    }

    pub(crate) async fn receive(&mut self, stop: &CancellationToken) -> Option<Received> {
        while !stop.is_cancelled() && !self.stopped {
            match self.next(stop).await {
                Ok(Some(received)) => {
                    self.backoff.reset();
                    return Some(received);
                }
                Ok(None) => (),
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!("cannot consume queue `{}`: {error}; retrying", self.queue);
                    self.shared.set_problem(&self.queue, Some(error));
                    // Dropping the subscription closes its channel. The broker then delivers the prefetched
                    // entries to other workers.
                    self.subscription = None;
                    self.backoff.pause(stop).await;
                }
            }
        }
        None
    }

    /// Stops receiving, and requeues the prefetched entries at their positions. The channel stays open, so
    /// that the worker can settle its last delivery.
    ///
    /// In a queue with exclusive order, `stop` does nothing: the consumer keeps the queue until `close`.
    /// Otherwise the next worker would start before the last delivery is settled.
    pub(crate) async fn stop(&mut self) -> Result<(), QueueError> {
        if self.shared.config(&self.queue).exclusive_order
            || std::mem::replace(&mut self.stopped, true)
        {
            return Ok(());
        }
        let Some(Subscription { session, channel, stream, .. }) = self.subscription.as_mut() else {
            return Ok(());
        };
        let cancel = channel.basic_cancel(stream.get_ref().tag(), BasicCancelOptions::default());
        session.step("stop consuming", cancel).await?;
        loop {
            let next = tokio::select! {
                next = stream.next() => next,
                () = session.ended() => return Ok(()),
            };
            let Some(Ok(raw)) = next else { return Ok(()) };
            let reject = raw.acker.reject(BasicRejectOptions { requeue: true });
            session.step("requeue a prefetched entry", reject).await?;
        }
    }

    /// Closes the channel. The broker ends the consumer and requeues the prefetched entries in one step.
    pub(crate) async fn close(mut self) -> Result<(), QueueError> {
        self.unsubscribe().await
    }

    async fn unsubscribe(&mut self) -> Result<(), QueueError> {
        // The stream must outlive the channel. Lapin cancels the consumer when the stream is dropped, and then the
        // next consumer of a queue with exclusive order would start before our entries are requeued.
        let Some(Subscription { session, channel, stream: _stream, .. }) = self.subscription.take()
        else {
            return Ok(());
        };
        let close = channel.close(200, ShortString::from("the worker stops"));
        session.step("close the channel", close).await?;
        Ok(())
    }

    /// Waits for the next message. Returns `None` if the worker cannot process that message now, if a release
    /// of held entries begins, if a retry may be due, or if `stop` is cancelled. The caller then calls `next` again, unless it must
    /// stop.
    async fn next(&mut self, stop: &CancellationToken) -> Result<Option<Received>, QueueError> {
        let is_usable = |s: &Subscription| s.session.is_up() && s.channel.status().connected();
        if !self.subscription.as_ref().is_some_and(is_usable) {
            self.subscription = None;
            let opened = {
                let opening = self.subscribe();
                tokio::pin!(opening);
                tokio::select! {
                    opened = &mut opening => Some(opened?),
                    // If `subscribe` were dropped while the broker carries it out, nobody would end that consumer, and its
                    // prefetched entries would wait for the end of the connection.
                    () = stop.cancelled() => {
                        tokio::time::timeout(STOP_LIMIT, opening).await.ok().and_then(Result::ok)
                    }
                }
            };
            let Some(opened) = opened else { return Ok(None) };
            self.subscription = Some(opened);
            self.shared.set_problem(&self.queue, None);
            if stop.is_cancelled() {
                return Ok(None);
            }
        }
        let Subscription { session, stream, used, .. } =
            self.subscription.as_mut().expect("the subscription was opened above");
        let generation = session.generation();
        // We register for releases and for due retries before we look for them. So we do not miss one that
        // comes in between.
        let shared = Arc::clone(&self.shared);
        let (released, ended) = (shared.held.released.notified(), shared.retries.ended.notified());
        tokio::pin!(released, ended);
        released.as_mut().enable();
        ended.as_mut().enable();
        if let Some((raw, channel)) =
            release::next_released(&self.shared, session, &self.queue).await?
        {
            let claim = Claim::new(&self.shared, &self.queue, generation, raw);
            return self.accept(claim.on(channel).released()).await;
        }
        let has_retries = !self.shared.config(&self.queue).exclusive_order;
        let is_work_first = self.turns.is_work();
        if has_retries
            && !is_work_first
            && let Some((raw, channel)) =
                self.turns.next_due(&self.shared, session, &self.queue).await?
        {
            let claim = Claim::new(&self.shared, &self.queue, generation, raw);
            return self.accept(claim.on(channel)).await;
        }
        self.turns.took_work();
        let idle_limit = self.shared.settings.idle_limit;
        // The future of `stream.next()` may be dropped: a delivery that it has not returned stays in the
        // stream.
        let next = tokio::select! {
            // `stop` is checked first, so that no delivery is returned after the stop.
            biased;
            () = stop.cancelled() => return Ok(None),
            () = released => return Ok(None),
            // If the connection misses its heartbeats, lapin does not end the stream. So we also wait for the
            // end of the session.
            () = session.ended() => {
                return Err(self.shared.broker.connection_lost("consume").into());
            }
            next = stream.next() => next,
            // No entry waits in the work queue, so it is the turn of the retries.
            () = std::future::ready(()), if is_work_first => return Ok(None),
            () = ended, if has_retries => return Ok(None),
            () = tokio::time::sleep(idle_limit.min(LOOK_INTERVAL)) => {
                if used.elapsed() >= idle_limit {
                    self.unsubscribe().await?;
                }
                return Ok(None);
            }
        };
        *used = Instant::now();
        match next {
            Some(Ok(raw)) => {
                let claim = |raw| Claim::new(&self.shared, &self.queue, generation, raw);
                self.shared.ages.deliver(&self.queue, incoming::queued_at_ms(&raw));
                if !incoming::is_external(&raw) {
                    return self.accept(claim(raw)).await;
                }
                let is_serial = self.shared.config(&self.queue).exclusive_order;
                let mut bytes = raw.data.len();
                let mut externals = vec![External::new(claim(raw))];
                while !is_serial
                    && bytes < GROUP_BYTES
                    && let Some(raw) = next_external(stream)
                {
                    bytes += raw.data.len();
                    externals.push(External::new(claim(raw)));
                }
                Ok(Some(Received::External(externals)))
            }
            Some(Err(source)) => Err(self.shared.broker.error("receive", source).into()),
            // The broker cancelled the consumer, because the queue was deleted or its node stopped.
            None => Err(self.shared.broker.consumer_cancelled(self.queue.as_str()).into()),
        }
    }

    /// Returns the message if the worker can process it now. Otherwise settles the message and returns
    /// `None`.
    async fn accept(&self, claim: Claim) -> Result<Option<Received>, QueueError> {
        match incoming::read(&self.queue, &claim.raw) {
            Incoming::Entry(delivered, remaining) if !remaining.is_zero() => {
                claim.settle(&delivered, &Settlement::Requeue { after: remaining }).await?;
            }
            Incoming::Entry(delivered, _) => {
                if claim.was_held() || !self.hold_back(&delivered, &claim).await? {
                    return Ok(Some(Received::Entry(delivered, claim)));
                }
            }
            Incoming::External => {
                return Ok(Some(Received::External(vec![External::new(claim)])));
            }
            Incoming::Unreadable(reason) => claim.dead_letter_unread(&reason).await?,
        }
        Ok(None)
    }

    /// Holds an entry if held entries of its task are being released, so that the earlier entries are
    /// delivered first. Returns whether the entry was held.
    async fn hold_back(
        &self,
        delivered: &DeliveredEntry,
        claim: &Claim,
    ) -> Result<bool, QueueError> {
        let key = (delivered.entry.queue.clone(), delivered.entry.task.clone());
        let Some(_guard) = self.shared.held.lock_if_releasing(&key).await else {
            return Ok(false);
        };
        claim.settle(delivered, &Settlement::Hold).await?;
        Ok(true)
    }

    async fn subscribe(&self) -> Result<Subscription, QueueError> {
        let session = self.shared.session().await?;
        self.shared.ensure_exists(&session, &self.queue, &QueueRole::Work).await?;
        let channel = session.open_channel().await?;
        // Every new channel must set the prefetch. We do not use lapin's own recovery, because it does not
        // restore the prefetch.
        let qos =
            channel.basic_qos(self.shared.config(&self.queue).prefetch, BasicQosOptions::default());
        session.step("set the prefetch", qos).await?;
        let consume = channel.basic_consume(
            self.queue.as_str().into(),
            ShortString::default(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let stream = session.step("consume the queue", consume).await?;
        Ok(Subscription { session, channel, stream: stream.peekable(), used: Instant::now() })
    }
}

/// Takes the next message if it has arrived already and is an external one. The prefetch of the channel limits how many there
/// are.
fn next_external(stream: &mut Peekable<lapin::Consumer>) -> Option<RawDelivery> {
    let is_external =
        |next: &lapin::Result<RawDelivery>| next.as_ref().is_ok_and(incoming::is_external);
    Pin::new(stream).next_if(is_external).now_or_never()??.ok()
}
