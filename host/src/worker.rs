//! A worker: one slot that works one delivery at a time.
//!
//! Owns the order receive → run → decide → record → settle. Whatever a task does, the worker goes
//! on with the next delivery; trouble with queue or journal is waited out.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use loopabull_model::{Attempt, Outcome, RetryPolicy, Run, RunId, Settlement, TaskKind};
use loopabull_queue::{Consumer, Delivery, Queue, QueueError};

use crate::backoff::Backoff;
use crate::board::Board;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::runner::Runner;
use crate::shutdown::Shutdown;

/// One slot that works one delivery at a time.
pub struct Worker {
    /// Counted from 1.
    pub number: u32,
    pub queue: Arc<Queue>,
    pub runner: Arc<Runner>,
    pub journal: Arc<Journal>,
    pub board: Arc<Board>,
    pub metrics: Arc<Metrics>,
    pub shutdown: Shutdown,
}

impl Worker {
    /// Works until it is told to drain.
    pub async fn work(self) {
        let trouble = format!("worker {}", self.number);
        let mut backoff = Backoff::default();
        while !self.shutdown.drain.is_cancelled() {
            let worked = self.work_while_connected(&mut backoff, &trouble).await;
            if let Err(error) = worked {
                self.board.set_trouble(&trouble, &error);
                tracing::warn!(worker = self.number, "{error}, trying again");
                backoff.pause(&self.shutdown.drain).await;
            }
        }
    }

    async fn work_while_connected(
        &self,
        backoff: &mut Backoff,
        trouble: &str,
    ) -> Result<(), String> {
        let mut consumer = self.queue.consume().await.map_err(chain)?;
        self.board.clear_trouble(trouble);
        while let Some(delivery) = consumer.receive(&self.shutdown.drain).await.map_err(chain)? {
            backoff.reset();
            self.board.start(self.number, &delivery);
            let settled = self.work_on(delivery, &mut consumer).await;
            self.board.finish(self.number);
            settled?;
        }
        Ok(())
    }

    async fn work_on(&self, delivery: Delivery, consumer: &mut Consumer) -> Result<(), String> {
        let task = self.runner.catalog.routes.task(&delivery.task);
        let policy = task.map_or_else(RetryPolicy::default, |task| task.manifest.retry.clone());
        // An attempt after the first may follow a crash between record and settle.
        let settlement = if delivery.attempt > 1 && self.has_succeeded(&delivery).await? {
            tracing::info!(
                message.id = %delivery.message.id,
                task.name = %delivery.task,
                "message {} already had its run, settled without another",
                delivery.message.id,
            );
            Settlement::Ack
        } else {
            let run = self.run(&delivery, &policy).await;
            let settlement = policy.decide(&run.outcome, run.attempt);
            log(&run, &settlement);
            self.metrics.count_run(&run, task.is_some());
            self.board.count_run(&run);
            self.record(run).await?;
            settlement
        };
        if self.shutdown.drain.is_cancelled()
            && let Err(error) = consumer.stop().await
        {
            tracing::warn!(worker = self.number, "{}", chain(error));
        }
        self.settle(&delivery, &settlement).await
    }

    async fn run(&self, delivery: &Delivery, policy: &RetryPolicy) -> Run {
        let id = RunId::new(uuid::Uuid::new_v4().simple().to_string());
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let start = Instant::now();
        let cancel = &self.shutdown.cancel;
        let (task, message, attempt) = (&delivery.task, &delivery.message, delivery.attempt);
        let attempted = match policy.refuse(attempt) {
            Some(reason) => Attempt::without_output(Outcome::NotStarted { reason }),
            None => self.runner.run(task, message, &id, attempt, cancel).await,
        };
        let kind = self.runner.catalog.routes.task(task).map_or(TaskKind::Playbook, |t| t.kind);
        Run {
            id,
            entry: delivery.entry.clone(),
            message_id: message.id.clone(),
            topic: message.topic.clone(),
            task: task.clone(),
            kind,
            attempt,
            worker: self.number,
            started_at_ms: i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            duration: start.elapsed(),
            outcome: attempted.outcome,
            output: attempted.output,
            notes: attempted.notes,
        }
    }

    async fn has_succeeded(&self, delivery: &Delivery) -> Result<bool, String> {
        let mut trouble = Trouble::of(self, "journal");
        loop {
            match self.journal.has_succeeded(&delivery.entry).await {
                Ok(answer) => return Ok(answer),
                Err(error) => trouble.wait_out(chain(error)).await?,
            }
        }
    }

    /// Records the run, and waits until it can: a delivery is not settled before.
    async fn record(&self, run: Run) -> Result<(), String> {
        let mut trouble = Trouble::of(self, "journal");
        while let Err(error) = self.journal.record(run.clone()).await {
            trouble.wait_out(chain(error)).await?;
        }
        Ok(())
    }

    /// Settles the delivery, and waits until it can, unless the claim is lost: then the queue will
    /// deliver it again, and the journal knows.
    async fn settle(&self, delivery: &Delivery, settlement: &Settlement) -> Result<(), String> {
        let mut trouble = Trouble::of(self, "queue");
        while let Err(error) = self.queue.settle(delivery, settlement).await {
            if matches!(error, QueueError::LostClaim { .. }) {
                return Err(chain(error));
            }
            trouble.wait_out(chain(error)).await?;
        }
        Ok(())
    }
}

/// Trouble with what has to be done before the next delivery may be taken. It is over when this is
/// dropped.
struct Trouble<'a> {
    worker: &'a Worker,
    what: String,
    backoff: Backoff,
}

impl<'a> Trouble<'a> {
    fn of(worker: &'a Worker, what: &str) -> Self {
        let what = format!("worker {}, {what}", worker.number);
        Self { worker, what, backoff: Backoff::default() }
    }

    /// Waits before the next try; gives up when the daemon drains, since what is not settled comes
    /// back after the restart.
    async fn wait_out(&mut self, error: String) -> Result<(), String> {
        let drain = &self.worker.shutdown.drain;
        if drain.is_cancelled() {
            return Err(error);
        }
        self.worker.board.set_trouble(&self.what, &error);
        tracing::error!(worker = self.worker.number, "{}: {error}, trying again", self.what);
        self.backoff.pause(drain).await;
        Ok(())
    }
}

impl Drop for Trouble<'_> {
    fn drop(&mut self) {
        self.worker.board.clear_trouble(&self.what);
    }
}

/// One line for each outcome.
fn log(run: &Run, settlement: &Settlement) {
    let settlement = match settlement {
        Settlement::Ack => "done",
        Settlement::Retry { .. } => "tried again",
        Settlement::DeadLetter { .. } => "set aside",
        Settlement::GiveBack => "given back",
    };
    let duration_ms = u64::try_from(Duration::as_millis(&run.duration)).unwrap_or(u64::MAX);
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                run.id = %run.id,
                message.id = %run.message_id,
                task.name = %run.task,
                topic = %run.topic,
                attempt = run.attempt,
                worker = run.worker,
                outcome = run.outcome.name(),
                settlement,
                duration_ms,
                "{} on message {}: {}",
                run.task,
                run.message_id,
                run.outcome,
            )
        };
    }
    if run.outcome.is_success() {
        line!(info);
    } else {
        line!(warn);
    }
}

/// An error with its sources, in one line.
fn chain(error: impl std::error::Error + Send + Sync + 'static) -> String {
    format!("{:#}", anyhow::Error::new(error))
}
