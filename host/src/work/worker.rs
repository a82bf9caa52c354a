//! A worker: one slot that works one delivery of one queue at a time.
//!
//! Owns the order receive → begin → run → record → decide → send → settle. Whatever a task does, the worker
//! goes on with the next delivery, unless the task's manifest wants it to stop; trouble with queue or
//! journal is waited out.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use loopabull_model::{
    Attempt, Emitted, Entry, Message, Outcome, QueueName, RetryPolicy, Run, RunId, Settlement,
    Task, TaskKind,
};
use loopabull_queue::{Backoff, Consumer, Delivery, External, QueueError, Received};

use crate::config::RefusedTasks;
use crate::error::chain;
use crate::journal::{Begun, Record};
use crate::tasks::catalog::Catalog;
use crate::work::pauses::Target;
use crate::work::runner;
use crate::work::shared::Workplace;

/// How long a delivery waits whose entry is still being worked here.
const SECOND_COPY: Duration = Duration::from_secs(10);

/// How long a delivery may take to be settled once everything was cancelled, and a goodbye.
const LAST_TRY: Duration = Duration::from_secs(3);

/// How long an entry waits that was running when two daemons died, by chance down to a half, so that it
/// does not run beside the others that were; with each further one as long again.
const APART: Duration = Duration::from_secs(5);

/// One slot that works one delivery of one queue at a time.
pub(crate) struct Worker {
    /// Counted from 1 over all queues.
    pub number: u32,
    pub queue: QueueName,
    pub place: Arc<Workplace>,
}

/// What a delivery comes to, once it has been looked at.
struct Decided {
    settlement: Settlement,
    /// Why this worker stops, if it does.
    stops: Option<String>,
}

impl Worker {
    /// Works until it is told to drain.
    pub(crate) async fn work(self) {
        let drain = self.place.shutdown.drain.clone();
        let (trouble, rest) = (format!("worker {}", self.number), self.rest());
        let mut backoff = Backoff::default();
        while !drain.is_cancelled() {
            let known = self.place.pauses.known();
            if let Some(pause) = known.get(&rest[0]) {
                self.place.board.set_trouble(&trouble, &format!("stopped: {}", pause.reason));
            }
            if rest.iter().any(|target| known.contains_key(target)) {
                tokio::select! {
                    () = self.place.pauses.wait(&rest, false) => (),
                    () = drain.cancelled() => (),
                }
                self.place.board.clear_trouble(&trouble);
                continue;
            }
            match self.work_until_rest(&mut backoff, &rest).await {
                Ok(()) => self.place.board.clear_trouble(&trouble),
                Err(error) => {
                    self.place.board.set_trouble(&trouble, &error);
                    tracing::warn!(worker = self.number, "{error}, trying again");
                    backoff.pause(&drain).await;
                }
            }
        }
    }

    /// What makes this worker rest: itself first, and its queue.
    fn rest(&self) -> [Target; 2] {
        [Target::Worker(self.number), Target::Queue(self.queue.clone())]
    }

    async fn work_until_rest(
        &self,
        backoff: &mut Backoff,
        rest: &[Target; 2],
    ) -> Result<(), String> {
        let mut consumer = self.place.queues.consume(&self.queue).await.map_err(chain)?;
        self.place.board.clear_trouble(&format!("worker {}", self.number));
        let worked = self.work_with(&mut consumer, backoff, rest).await;
        self.say_goodbye(consumer.close()).await;
        worked
    }

    /// Does what is polite towards a broker, which finds out by itself if that cannot be done.
    async fn say_goodbye(&self, goodbye: impl Future<Output = Result<(), QueueError>>) {
        match tokio::time::timeout(LAST_TRY, goodbye).await {
            Ok(Ok(())) => (),
            Ok(Err(error)) => tracing::warn!(worker = self.number, "{}", chain(error)),
            Err(_) => tracing::warn!(worker = self.number, "the broker does not answer"),
        }
    }

    async fn work_with(
        &self,
        consumer: &mut Consumer,
        backoff: &mut Backoff,
        rest: &[Target; 2],
    ) -> Result<(), String> {
        let pauses = &self.place.pauses;
        while !rest.iter().any(|target| pauses.rests(target)) {
            let stop = self.place.shutdown.drain.child_token();
            let received = {
                let receive = consumer.receive(&stop);
                tokio::pin!(receive);
                tokio::select! {
                    received = &mut receive => received,
                    () = pauses.wait(rest, true) => {
                        // It must not be dropped: a claim may be on its way to the disk.
                        stop.cancel();
                        receive.await
                    }
                }
            };
            let Some(received) = received.map_err(chain)? else { return Ok(()) };
            match received {
                Received::Delivery(delivery) => self.work_on(delivery, consumer).await?,
                Received::External(external) => self.route(&external).await?,
            }
            backoff.reset();
        }
        Ok(())
    }

    /// Routes what others put into the queue, and waits until it can.
    async fn route(&self, external: &External) -> Result<(), String> {
        let mut trouble = Trouble::of(self, "queue");
        while let Err(error) = self.place.route(&self.queue, external).await {
            trouble.wait_out(chain(error)).await?;
        }
        Ok(())
    }

    /// Works one delivery, from what is to be done with it to its settlement.
    async fn work_on(&self, mut delivery: Delivery, consumer: &mut Consumer) -> Result<(), String> {
        self.place.board.start(self.number, &delivery);
        let decided = self.decide(&mut delivery).await;
        self.place.board.finish(self.number);
        let Decided { settlement, stops } = decided?;
        if self.place.shutdown.drain.is_cancelled() {
            self.say_goodbye(consumer.stop()).await;
        }
        let settled = self.settle(&delivery, &settlement).await;
        if let Some(reason) = stops {
            self.place.pause(Target::Worker(self.number), &reason.into()).await;
        }
        settled
    }

    /// Decides what becomes of a delivery, mostly by running its task.
    async fn decide(&self, delivery: &mut Delivery) -> Result<Decided, String> {
        let place = &self.place;
        let only = |settlement| Ok(Decided { settlement, stops: None });
        let entry = delivery.entry.clone();
        if place.shutdown.drain.is_cancelled() {
            return only(Settlement::GiveBack { after: Duration::ZERO });
        }
        if place.pauses.rests(&Target::Task(entry.task.clone())) {
            return only(Settlement::Hold);
        }
        // One version of everything, from here to the end of the run.
        let catalog = place.runner.catalog.get();
        if let Some(reason) = catalog.refused(&entry.task) {
            return only(match place.refused_tasks {
                RefusedTasks::Wait => Settlement::Hold,
                RefusedTasks::DeadLetter => {
                    Settlement::dead_letter(format!("its task is refused: {reason}"))
                }
            });
        }
        // The broker took our claim for lost and delivered the entry again, while it runs.
        let Some(_in_work) = place.running.start(&entry.id) else {
            tracing::warn!(message.id = %entry.message.id, "message {} is being worked already", entry.message.id);
            return only(Settlement::GiveBack { after: SECOND_COPY });
        };
        let task = catalog.routes.task(&entry.task);
        let policy = task.map_or_else(RetryPolicy::default, |task| task.manifest.retry.clone());
        let cut_offs = match self.begin(delivery).await? {
            Begun::Succeeded => {
                tracing::info!(
                    message.id = %entry.message.id,
                    task.name = %entry.task,
                    "message {} already had its run, settled without another",
                    entry.message.id,
                );
                // What it wanted to send may be all that is missing.
                self.send(&entry).await?;
                return only(Settlement::Ack);
            }
            Begun::Ended { outcome, attempt, output } => {
                delivery.attempt = attempt;
                let settlement = policy.decide(&outcome, attempt, fastrand::f64());
                let stops = policy.stops_worker(&outcome);
                let stops = stops.then(|| stop_reason(&entry, &outcome));
                return Ok(Decided { settlement: with_output(settlement, output), stops });
            }
            Begun::Wait { cut_offs } => {
                let chance = 0.5 + fastrand::f64() / 2.0;
                let after = APART.saturating_mul(cut_offs - 1).mul_f64(chance);
                return only(Settlement::GiveBack { after });
            }
            Begun::Run { cut_offs } => cut_offs,
        };
        let run = self.run_and_record(&catalog, delivery, &policy, cut_offs).await?;
        let settlement = policy.decide(&run.outcome, run.attempt, fastrand::f64());
        let stops = policy.stops_worker(&run.outcome);
        let stops = stops.then(|| stop_reason(&entry, &run.outcome));
        log(&run, &settlement);
        place.metrics.count_run(&run, task.is_some());
        place.board.count_run(&run);
        if let Some(task) = task {
            place.watch_over(task, &run).await;
        }
        if !run.emitted.is_empty() {
            self.send(&entry).await?;
        }
        Ok(Decided { settlement: with_output(settlement, run.output.text), stops })
    }

    /// Runs and records; alone, if another run was faster.
    async fn run_and_record(
        &self,
        catalog: &Catalog,
        delivery: &Delivery,
        policy: &RetryPolicy,
        cut_offs: u32,
    ) -> Result<Run, String> {
        let task = &delivery.entry.task;
        let remembers = |task: &Arc<Task>| task.manifest.grants.state.is_some();
        if !catalog.routes.task(task).is_some_and(remembers) {
            return self.record(self.run(catalog, delivery, policy, cut_offs).await).await;
        }
        let run = {
            let _turn = self.place.turns.share(task).await;
            self.record(self.run(catalog, delivery, policy, cut_offs).await).await?
        };
        if !matches!(run.outcome, Outcome::Conflict { .. }) {
            return Ok(run);
        }
        log(&run, &Settlement::GiveBack { after: Duration::ZERO });
        self.place.metrics.count_run(&run, true);
        let _turn = self.place.turns.take(task).await;
        self.record(self.run(catalog, delivery, policy, cut_offs).await).await
    }

    async fn run(
        &self,
        catalog: &Catalog,
        delivery: &Delivery,
        policy: &RetryPolicy,
        cut_offs: u32,
    ) -> Record {
        let id = RunId::new(uuid::Uuid::new_v4().simple().to_string());
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let start = Instant::now();
        let cancel = &self.place.shutdown.cancel;
        let (task, message, attempt) =
            (&delivery.entry.task, &delivery.entry.message, delivery.attempt);
        let runner = &self.place.runner;
        let attempted = match policy.refuse(attempt, cut_offs) {
            Some(reason) => Attempt::without_output(Outcome::Refused { reason }),
            None => {
                let state = self.place.journal.state_of(task);
                let call = runner::Call { task, message, run_id: &id, attempt, state };
                runner.run(catalog, call, cancel).await
            }
        };
        let known = catalog.routes.task(task);
        let sent_at = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        let emissions = attempted.effects.emitted.into_iter().enumerate();
        let sends: Vec<Message> = emissions
            .map(|(place, emission)| emission.into_message(&delivery.entry, place, sent_at))
            .collect();
        let emitted =
            |message: &Message| Emitted { id: message.id.clone(), topic: message.topic.clone() };
        let run = Run {
            id,
            entry: delivery.entry.id.clone(),
            message_id: message.id.clone(),
            topic: message.topic.clone(),
            task: task.clone(),
            kind: known.map_or(TaskKind::Playbook, |task: &Arc<Task>| task.kind),
            attempt,
            worker: self.number,
            started_at_ms: i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            duration: start.elapsed(),
            outcome: attempted.outcome,
            output: attempted.output,
            notes: attempted.notes,
            grants: known.map(|task| task.manifest.grants.lines()).unwrap_or_default(),
            usage: attempted.usage,
            emitted: sends.iter().map(emitted).collect(),
            playbook: attempted.playbook,
        };
        Record { run, message: message.clone(), sends, state: attempted.effects.state }
    }

    /// Notes in the journal that the attempt begins, and waits until it can: nothing is run before.
    async fn begin(&self, delivery: &Delivery) -> Result<Begun, String> {
        let mut trouble = Trouble::of(self, "journal");
        let entry = &delivery.entry;
        loop {
            match self.place.journal.begin(&entry.id, &entry.task, delivery.attempt).await {
                Ok(begun) => return Ok(begun),
                Err(error) => trouble.wait_out(chain(error)).await?,
            }
        }
    }

    /// Records the run, and waits until it can: a delivery is not settled before. Returns the run as
    /// it was recorded.
    async fn record(&self, record: Record) -> Result<Run, String> {
        let mut trouble = Trouble::of(self, "journal");
        loop {
            match self.place.journal.record(record.clone()).await {
                Ok(run) => return Ok(run),
                Err(error) => trouble.wait_out(chain(error)).await?,
            }
        }
    }

    /// Sends what the run on an entry wanted to send, and waits until it can.
    async fn send(&self, entry: &Entry) -> Result<(), String> {
        let mut trouble = Trouble::of(self, "outbox");
        while let Err(error) = self.place.send(&entry.id).await {
            trouble.wait_out(error).await?;
        }
        Ok(())
    }

    /// Settles the delivery, and waits until it can, unless the claim is lost: then the queue will
    /// deliver it again, and the journal knows.
    async fn settle(&self, delivery: &Delivery, settlement: &Settlement) -> Result<(), String> {
        let mut trouble = Trouble::of(self, "queue");
        loop {
            // Given up only when the daemon must end: what is not settled comes back, and the journal
            // knows it.
            let settled = tokio::select! {
                settled = delivery.settle(settlement) => settled,
                () = self.given_up() => return Ok(()),
            };
            let Err(error) = settled else { return Ok(()) };
            if matches!(error, QueueError::LostClaim { .. }) {
                self.place.metrics.lost_claims.inc();
                tracing::warn!(worker = self.number, "{error}, the journal will know it again");
                return Ok(());
            }
            trouble.wait_out(chain(error)).await?;
        }
    }

    /// Returns a while after everything was cancelled: what answers at once may still be settled.
    async fn given_up(&self) {
        self.place.shutdown.cancel.cancelled().await;
        tokio::time::sleep(LAST_TRY).await;
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
        let drain = &self.worker.place.shutdown.drain;
        if drain.is_cancelled() {
            return Err(error);
        }
        self.worker.place.board.set_trouble(&self.what, &error);
        tracing::error!(worker = self.worker.number, "{}: {error}, trying again", self.what);
        self.backoff.pause(drain).await;
        Ok(())
    }
}

impl Drop for Trouble<'_> {
    fn drop(&mut self) {
        self.worker.place.board.clear_trouble(&self.what);
    }
}

/// Why a worker stops.
fn stop_reason(entry: &Entry, outcome: &Outcome) -> String {
    format!("task `{}` on message {}: {outcome}", entry.task, entry.message.id)
}

/// A dead letter takes along what its last run printed.
fn with_output(settlement: Settlement, output: String) -> Settlement {
    match settlement {
        Settlement::DeadLetter { reason, .. } => Settlement::DeadLetter { reason, output },
        settlement => settlement,
    }
}

/// One line for each outcome.
fn log(run: &Run, settlement: &Settlement) {
    let settlement = settlement.as_str();
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
