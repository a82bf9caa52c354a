//! One worker's end: a channel of its own with its consumer, made anew whenever it is lost.

use std::sync::Arc;

use futures_util::StreamExt;
use lapin::Channel;
use lapin::options::{
    BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions,
};
use lapin::types::{FieldTable, ShortString};
use loopabull_model::{QueueName, Settlement};
use tokio_util::sync::CancellationToken;

use super::entry::{self, Read};
use super::session::Session;
use super::topology::Station;
use super::{Amqp, Raw};
use crate::{Backoff, QueueError, Received};

/// One worker's end of a queue.
#[derive(Debug)]
pub struct Consumer {
    amqp: Arc<Amqp>,
    queue: QueueName,
    line: Option<Line>,
    backoff: Backoff,
    stopped: bool,
}

/// What is lost together: a channel and its consumer.
#[derive(Debug)]
struct Line {
    session: Arc<Session>,
    channel: Channel,
    stream: lapin::Consumer,
}

impl Consumer {
    pub(crate) fn new(amqp: Arc<Amqp>, queue: &QueueName) -> Self {
        Self { amqp, queue: queue.clone(), line: None, backoff: Backoff::default(), stopped: false }
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
                    let error = super::chain(&error);
                    tracing::warn!("queue `{}`: {error}, consuming again", self.queue);
                    self.amqp.set_trouble(&self.queue, Some(error));
                    // Dropped, so that the broker delivers to others what it had sent here.
                    self.line = None;
                    self.backoff.pause(stop).await;
                }
            }
        }
        None
    }

    /// Takes nothing more. The channel stays, for the delivery that the worker still has.
    ///
    /// What the broker had sent ahead goes back to its place. In an exclusive order the next worker
    /// must not start before the last delivery is settled, so there the consumer stays until `close`.
    pub(crate) async fn stop(&mut self) -> Result<(), QueueError> {
        if self.amqp.config(&self.queue).exclusive_order
            || std::mem::replace(&mut self.stopped, true)
        {
            return Ok(());
        }
        let Some(line) = self.line.as_mut() else { return Ok(()) };
        let cancel = line.channel.basic_cancel(line.stream.tag(), BasicCancelOptions::default());
        line.session.step("stop consuming", cancel).await?;
        loop {
            let next = tokio::select! {
                next = line.stream.next() => next,
                () = line.session.over() => return Ok(()),
            };
            let Some(Ok(raw)) = next else { return Ok(()) };
            let back = raw.acker.reject(BasicRejectOptions { requeue: true });
            line.session.step("give back", back).await?;
        }
    }

    /// Closes the channel: what was sent ahead and not handed out goes back, and the consumer ends,
    /// in one step.
    pub(crate) async fn close(mut self) -> Result<(), QueueError> {
        let Some(line) = self.line.take() else { return Ok(()) };
        let close = line.channel.close(200, ShortString::from("the worker stops"));
        line.session.step("close the channel", close).await
    }

    /// Waits for what comes next; nothing, if it was not for a worker.
    async fn next(&mut self, stop: &CancellationToken) -> Result<Option<Received>, QueueError> {
        let is_usable = |line: &Line| line.session.is_up() && line.channel.status().connected();
        if !self.line.as_ref().is_some_and(is_usable) {
            self.line = None;
            let opened = tokio::select! {
                opened = self.open() => opened?,
                () = stop.cancelled() => return Ok(None),
            };
            self.line = Some(opened);
            self.amqp.set_trouble(&self.queue, None);
        }
        let line = self.line.as_mut().expect("it was made above");
        let generation = line.session.generation;
        // Before the look, so that none is missed that comes after it.
        let released = self.amqp.released.notified();
        tokio::pin!(released);
        released.as_mut().enable();
        let held = self.amqp.next_released(&line.session, &self.queue).await?;
        if let Some((raw, channel)) = held {
            return self.look_at(generation, raw, Some(channel)).await;
        }
        // The stream keeps a delivery that it has not handed out, so it may be dropped here.
        let next = tokio::select! {
            // First: what is handed out after it would be worked.
            biased;
            () = stop.cancelled() => return Ok(None),
            () = released => return Ok(None),
            // A stream of lapin's does not end with a connection whose heartbeat was missed.
            () = line.session.over() => return Err(self.amqp.broker.lost("consume")),
            next = line.stream.next() => next,
        };
        match next {
            Some(Ok(raw)) => self.look_at(generation, raw, None).await,
            Some(Err(source)) => Err(self.amqp.broker.error("receive", source)),
            // The broker's cancel (the queue was deleted, its node went away), not an end.
            None => Err(self.amqp.broker.lost("consume")),
        }
    }

    async fn look_at(
        &self,
        generation: u64,
        raw: Raw,
        held_on: Option<Channel>,
    ) -> Result<Option<Received>, QueueError> {
        let was_held = held_on.is_some();
        match entry::read(&self.queue, generation, held_on, raw) {
            Read::Entry(delivery, left) if !left.is_zero() => {
                self.amqp.settle(&delivery, &Settlement::GiveBack { after: left }).await?;
            }
            // Behind those of its task that were held before it.
            Read::Entry(delivery, _) if !was_held && self.amqp.hold_back(&delivery).await? => (),
            Read::Entry(delivery, _) => return Ok(Some(Received::Delivery(*delivery))),
            Read::Foreign(foreign) => return Ok(Some(Received::Foreign(*foreign))),
            Read::Broken(tag, reason) => self.amqp.bury(&self.queue, &tag, &reason).await?,
        }
        Ok(None)
    }

    async fn open(&self) -> Result<Line, QueueError> {
        let session = self.amqp.supervisor.session().await?;
        self.amqp.make_sure_of(&session, &self.queue, &Station::Work).await?;
        let channel = session.channel().await?;
        // Lapin would not set it again after a recovery of its own; here every channel is new.
        let qos = channel.basic_qos(self.amqp.prefetch, BasicQosOptions::default());
        session.step("set the prefetch", qos).await?;
        let consume = channel.basic_consume(
            self.queue.as_str().into(),
            ShortString::default(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let stream = session.step("consume the queue", consume).await?;
        Ok(Line { session, channel, stream })
    }
}
