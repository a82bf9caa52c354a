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
use std::time::Duration;

use loopabull_model::{QueueName, Target, chain};
use loopabull_queue::{Backoff, Consumer, Delivery, External, QueueError, Queues, Received};
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};

use crate::observe::health::{Condition, Need, Part};
use crate::work::error::WorkError;
use crate::work::external::ExternalRouter;
use crate::work::pauses::Pauses;
use crate::work::worker::delivery::Deliveries;
use crate::work::worker::ending::Ending;
use crate::work::worker::retry::Retries;

/// Size of a message that takes a further permit, in bytes. So a worker has fewer large messages that are run and not settled.
const LARGE: usize = 256 << 10;
/// After this time of a run, other workers get what this one has claimed in advance.
const LONG: Duration = Duration::from_millis(50);

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

/// The limits of the deliveries from their receipt to their settlement.
struct Limits {
    /// One permit for each delivery, and more for a large one.
    permits: Semaphore,
    /// Held while a run cannot be recorded.
    journal_works: Mutex<()>,
}

impl Limits {
    /// Waits for permits.
    async fn permits(&self, count: u16) -> SemaphorePermit<'_> {
        let permits = self.permits.acquire_many(count.into()).await;
        permits.expect("the semaphore is never closed")
    }
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
        let limits =
            Limits { permits: Semaphore::new(self.prefetch.into()), journal_works: Mutex::new(()) };
        let (ended, waiting) = mpsc::unbounded_channel();
        let process = async {
            let processed = self.process_all(&mut consumer, &limits, ended, backoff).await;
            // The consumer is stopped at once. Otherwise the broker would send further deliveries
            // after the settlements.
            self.retries.close(consumer.stop()).await;
            processed
        };
        let endings = self.deliveries.endings.run(&self.retries, &limits.journal_works, waiting);
        let (processed, ()) = tokio::join!(process, endings);
        self.retries.close(consumer.close()).await;
        processed
    }

    async fn process_all<'a>(
        &'a self,
        consumer: &mut Consumer,
        limits: &'a Limits,
        ended: UnboundedSender<Ending<'a>>,
        backoff: &mut Backoff,
    ) -> Result<(), WorkError> {
        let targets = self.targets();
        while !self.is_paused() {
            let permit = tokio::select! {
                biased;
                () = self.retries.drain.cancelled() => return Ok(()),
                () = self.pauses.wait_until_paused(&targets) => return Ok(()),
                permit = limits.permits(1) => permit,
            };
            match self.receive(consumer).await? {
                None => return Ok(()),
                Some(Received::Delivery(delivery)) => {
                    let ending = self.process(consumer, limits, permit, *delivery).await?;
                    let is_held = ending.rest.is_held();
                    drop(ended.send(ending));
                    if is_held {
                        // No later message of the task may run before this one is among the held ones.
                        drop(limits.permits(self.prefetch).await);
                    }
                }
                Some(Received::External(externals)) => self.route(externals).await?,
            }
            backoff.reset();
        }
        Ok(())
    }

    /// Runs the task of a delivery. While that takes long, other workers get what this one has claimed in advance in the
    /// embedded queue.
    async fn process<'a>(
        &'a self,
        consumer: &mut Consumer,
        limits: &'a Limits,
        mut permits: SemaphorePermit<'a>,
        delivery: Delivery,
    ) -> Result<Ending<'a>, WorkError> {
        let weight = delivery.entry.message.body.as_str().len() / LARGE;
        let others = u16::try_from(weight).unwrap_or(u16::MAX).min(self.prefetch - 1);
        permits.merge(limits.permits(others).await);
        drop(limits.journal_works.lock().await);
        let process = self.deliveries.process(&self.retries, delivery, permits);
        tokio::pin!(process);
        tokio::select! {
            biased;
            ended = &mut process => return ended,
            () = tokio::time::sleep(LONG) => (),
        }
        consumer.give_back();
        process.await
    }

    /// Waits for the next delivery. Returns `None` once the daemon drains or a pause begins.
    async fn receive(&self, consumer: &mut Consumer) -> Result<Option<Received>, QueueError> {
        let (stop, targets) = (self.retries.drain.child_token(), self.targets());
        let receive = consumer.receive(&stop);
        tokio::pin!(receive);
        tokio::select! {
            biased;
            () = self.pauses.wait_until_paused(&targets) => {
                // `receive` must not be dropped, because it may have received a delivery. So it is told to stop, and
                // awaited.
                stop.cancel();
                receive.await
            }
            received = &mut receive => received,
        }
    }

    /// Routes external messages, with retries.
    async fn route(&self, externals: Vec<External>) -> Result<(), QueueError> {
        let mut waiting = self.external.decide(&self.queue, externals);
        let mut retry = self.retries.start(Need::Route);
        while let Err(error) = self.external.settle(&mut waiting).await {
            retry.wait(error).await?;
        }
        Ok(())
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
