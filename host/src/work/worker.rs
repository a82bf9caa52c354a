//! A worker runs the deliveries of one queue, one at a time.
//!
//! A worker receives deliveries while neither the worker nor its queue is paused. After an error,
//! it consumes the queue again. After a run, it goes on with the next delivery, whatever the
//! outcome, and while the run is recorded and its delivery is settled. `prefetch` limits the deliveries
//! that the worker has in flight. There is one exception: the failure of a task with `on_failure = "stop-worker"` pauses
//! the worker.
//!
//! The worker passes entries to [`Deliveries`], and external messages to [`ExternalRouter`]. It
//! does not run tasks itself.

pub(crate) mod admission;
pub(crate) mod attempt;
pub(crate) mod delivery;
pub(crate) mod ending;
pub(crate) mod retry;
pub(crate) mod settle;

use std::sync::Arc;

use loopabull_model::{QueueName, Target, chain};
use loopabull_queue::{Backoff, Consumer, External, QueueError, Queues, Received};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, UnboundedSender};

use crate::observe::health::{Condition, Need, Part};
use crate::work::error::WorkError;
use crate::work::external::ExternalRouter;
use crate::work::pauses::Pauses;
use crate::work::worker::delivery::Deliveries;
use crate::work::worker::ending::Ending;
use crate::work::worker::retry::Retries;

/// A worker, which runs the deliveries of one queue, one at a time.
pub(crate) struct Worker {
    pub queue: QueueName,
    /// Maximum number of deliveries from their receipt to their settlement.
    pub prefetch: u16,
    pub queues: Arc<Queues>,
    pub pauses: Arc<Pauses>,
    pub external: Arc<ExternalRouter>,
    pub deliveries: Arc<Deliveries>,
    /// Retries of this worker, with the number of the worker.
    pub retries: Retries,
}

impl Worker {
    /// Receives and processes deliveries until the daemon drains.
    pub(crate) async fn run(self) {
        let Retries { worker, health, drain } = &self.retries;
        let condition = health.condition(Part::Worker(*worker));
        let mut backoff = Backoff::default();
        while !drain.is_cancelled() {
            if self.is_paused() {
                self.wait_until_resumed(&condition).await;
                continue;
            }
            match self.consume(&condition, &mut backoff).await {
                Ok(()) => condition.resolve(),
                Err(error) => {
                    let error = chain(error);
                    tracing::warn!(worker.number = worker, "worker {worker}: {error}; retrying");
                    condition.report(error);
                    backoff.pause(drain).await;
                }
            }
        }
    }

    /// Consumes the queue until a pause begins, the daemon drains, or an error occurs.
    async fn consume(
        &self,
        condition: &Condition<'_>,
        backoff: &mut Backoff,
    ) -> Result<(), WorkError> {
        let mut consumer = self.queues.consume(&self.queue).await?;
        condition.resolve();
        let places = Semaphore::new(self.prefetch.into());
        let (ended, waiting) = mpsc::unbounded_channel();
        let process = async {
            let processed = self.process_all(&mut consumer, &places, ended, backoff).await;
            // The consumer is stopped first. Otherwise the broker would send the next deliveries
            // after the last settlements.
            self.retries.close(consumer.stop()).await;
            processed
        };
        let endings = self.deliveries.endings.run(&self.retries, waiting);
        let (processed, ()) = tokio::join!(process, endings);
        self.retries.close(consumer.close()).await;
        processed
    }

    async fn process_all<'a>(
        &'a self,
        consumer: &mut Consumer,
        places: &'a Semaphore,
        ended: UnboundedSender<Ending<'a>>,
        backoff: &mut Backoff,
    ) -> Result<(), WorkError> {
        while !self.is_paused() {
            let place = places.acquire().await.expect("the semaphore is never closed");
            match self.receive(consumer).await? {
                None => return Ok(()),
                Some(Received::Delivery(delivery)) => {
                    let ending = self.deliveries.process(&self.retries, delivery, place).await?;
                    drop(ended.send(ending));
                }
                Some(Received::External(external)) => self.route(&external).await?,
            }
            backoff.reset();
        }
        Ok(())
    }

    /// Waits for the next delivery. Returns `None` once the daemon drains or a pause begins.
    async fn receive(&self, consumer: &mut Consumer) -> Result<Option<Received>, QueueError> {
        let (stop, targets) = (self.retries.drain.child_token(), self.targets());
        let receive = consumer.receive(&stop);
        tokio::pin!(receive);
        tokio::select! {
            received = &mut receive => received,
            () = self.pauses.wait_until_paused(&targets) => {
                // `receive` must not be dropped, because it may be writing a claim to disk. So it
                // is told to stop, and awaited.
                stop.cancel();
                receive.await
            }
        }
    }

    /// Routes an external message, with retries.
    async fn route(&self, external: &External) -> Result<(), QueueError> {
        self.retries.run(Need::Queue, || self.external.route(&self.queue, external)).await
    }

    /// Waits until neither the worker nor its queue is paused, or until the daemon drains. Reports
    /// a stopped worker as a problem, but not a paused queue.
    async fn wait_until_resumed(&self, condition: &Condition<'_>) {
        let targets = self.targets();
        if let Some(pause) = self.pauses.current().get(&targets[0]) {
            condition.report(format_args!("stopped: {}", pause.reason));
        }
        tokio::select! {
            () = self.pauses.wait_until_resumed(&targets) => (),
            () = self.retries.drain.cancelled() => (),
        }
        condition.resolve();
    }

    fn is_paused(&self) -> bool {
        self.targets().iter().any(|target| self.pauses.is_paused(target))
    }

    /// Returns the two targets that can pause this worker: the worker itself and its queue.
    fn targets(&self) -> [Target; 2] {
        [Target::Worker(self.retries.worker), Target::Queue(self.queue.clone())]
    }
}
