//! A worker: one slot that works one delivery at a time.
//!
//! Owns the order receive → run → decide → record → settle. Whatever a task does, the worker goes
//! on with the next delivery; trouble with queue or journal is waited out.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use loopabull_model::{RetryPolicy, Run, RunId, Settlement, TaskKind};
use loopabull_queue::{Delivery, Queue};

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
        backoff.reset();
        self.board.clear_trouble(trouble);
        while let Some(delivery) = consumer.receive(&self.shutdown.drain).await.map_err(chain)? {
            self.board.start(self.number, &delivery);
            let settled = self.work_on(delivery).await;
            self.board.finish(self.number);
            settled?;
        }
        Ok(())
    }

    async fn work_on(&self, delivery: Delivery) -> Result<(), String> {
        // An attempt after the first may follow a crash between record and settle.
        if delivery.attempt > 1 {
            let succeeded = self.journal.has_succeeded(&delivery.message.id, &delivery.task).await;
            if succeeded.map_err(chain)? {
                tracing::info!(
                    message.id = %delivery.message.id,
                    task.name = %delivery.task,
                    "message {} already had its run, settled without another",
                    delivery.message.id,
                );
                return self.queue.settle(delivery, &Settlement::Ack).await.map_err(chain);
            }
        }
        let run = self.run(&delivery).await;
        let task = self.runner.catalog.routes.task(&delivery.task);
        let policy = task.map_or_else(RetryPolicy::default, |task| task.manifest.retry.clone());
        let settlement = policy.decide(&run.outcome, run.attempt);
        log(&run, &settlement);
        self.metrics.count_run(&run);
        self.board.count_run(&run);
        self.record(run).await?;
        self.queue.settle(delivery, &settlement).await.map_err(chain)
    }

    async fn run(&self, delivery: &Delivery) -> Run {
        let id = RunId::new(uuid::Uuid::new_v4().simple().to_string());
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let start = Instant::now();
        let cancel = &self.shutdown.cancel;
        let (task, message, attempt) = (&delivery.task, &delivery.message, delivery.attempt);
        let attempted = self.runner.run(task, message, &id, attempt, cancel).await;
        let kind = self.runner.catalog.routes.task(task).map_or(TaskKind::Playbook, |t| t.kind);
        Run {
            id,
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

    /// Records the run, and waits until it can: a delivery is not settled before.
    async fn record(&self, run: Run) -> Result<(), String> {
        const TROUBLE: &str = "journal";
        let mut backoff = Backoff::default();
        loop {
            let Err(error) = self.journal.record(run.clone()).await else {
                self.board.clear_trouble(TROUBLE);
                return Ok(());
            };
            let error = chain(error);
            self.board.set_trouble(TROUBLE, &error);
            if self.shutdown.drain.is_cancelled() {
                // Not settled, so the message comes back after the restart.
                return Err(error);
            }
            tracing::error!(run.id = %run.id, "cannot record run {}: {error}", run.id);
            backoff.pause(&self.shutdown.drain).await;
        }
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
