//! Processes one delivery, from its admission to its settlement.
//!
//! The steps have a fixed order: admit the delivery, record that an attempt begins, run the task,
//! record the run, decide the settlement, send the emitted messages, and settle the delivery. So a
//! run starts only after its beginning is in the journal, and a delivery is settled only after its
//! run is in the journal. The worker receives the delivery, and [`Settler`] settles it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use loopabull_model::{
    Entry, MessageId, Outcome, PausedBy, Reason, RetryPolicy, Settlement, Target, TaskName, chain,
};
use loopabull_queue::{Consumer, Delivery};

use crate::journal::{Begun, Journal};
use crate::observe::activity::Activity;
use crate::observe::health::Need;
use crate::tasks::catalog::CurrentCatalog;
use crate::work::breakers::Breakers;
use crate::work::error::WorkError;
use crate::work::outbox::Outbox;
use crate::work::pauses::Pauses;
use crate::work::worker::admission::Admission;
use crate::work::worker::attempt::{Attempts, Planned};
use crate::work::worker::retry::Retries;
use crate::work::worker::settle::Settler;

/// Delay of an entry that was running when two daemons died. The delay is shortened at random by up
/// to a half, so that the entries that were running do not run at the same time again.
const CRASH_DELAY: Duration = Duration::from_secs(5);

/// Time after which a worker does not wait again with a delivery while the machine is short of something. With
/// the last wait of the back-off, at most 15 s, it fits into the margin by which the acknowledgement timeout
/// of a broker must exceed the timeout of a task.
const MAX_SHORTAGE: Duration = Duration::from_secs(10);

/// Maximum delay of a delivery that the worker requeues after such a time.
const SHORTAGE_DELAY: Duration = Duration::from_secs(2);

/// Processes the deliveries of all workers.
pub(crate) struct Deliveries {
    pub catalog: Arc<CurrentCatalog>,
    pub admission: Admission,
    pub journal: Arc<Journal>,
    pub attempts: Attempts,
    pub outbox: Arc<Outbox>,
    pub breakers: Arc<Breakers>,
    pub settler: Settler,
    pub pauses: Arc<Pauses>,
    pub activity: Arc<Activity>,
}

/// The result of an attempt.
enum Attempted {
    Decided(Decided),
    /// The run could not start, because the machine is short of something. The attempt is repeated.
    Short(ShortageError),
}

/// The reason why a run could not start, and the message and the task of the run.
#[derive(Debug, thiserror::Error)]
#[error("{reason} (message {message}, task `{task}`)")]
struct ShortageError {
    reason: Reason,
    message: MessageId,
    task: TaskName,
}

impl ShortageError {
    fn new(entry: &Entry, reason: Reason) -> Self {
        Self { reason, message: entry.message.id.clone(), task: entry.task.clone() }
    }
}

/// The decision about a delivery: its settlement, and whether the worker stops.
struct Decided {
    settlement: Settlement,
    /// Reason why the worker stops, if it does.
    stop: Option<Reason>,
}

impl Deliveries {
    /// Processes one delivery of a worker, including its settlement.
    pub(super) async fn process(
        &self,
        retries: &Retries,
        mut delivery: Delivery,
        consumer: &mut Consumer,
    ) -> Result<(), WorkError> {
        let decided = {
            let _busy = self.activity.start(retries.worker, &delivery);
            self.decide(retries, &mut delivery).await?
        };
        let Decided { settlement, stop } = decided;
        if retries.drain.is_cancelled() {
            // The consumer is stopped first. Otherwise the broker would send the next delivery
            // after the settlement.
            retries.close(consumer.stop()).await;
        }
        let settled = self.settler.settle(retries, &delivery, &settlement).await;
        if let Some(reason) = stop {
            let target = Target::Worker(retries.worker);
            self.pauses.pause_automatically(target, PausedBy::Daemon, &reason).await;
        }
        Ok(settled?)
    }

    /// Returns the decision about a delivery. While the machine is short of something that a run needs,
    /// the worker keeps its delivery, receives no other one, and tries again. The delivery is requeued if
    /// the daemon drains, if the queue or the worker is paused, or after [`MAX_SHORTAGE`].
    async fn decide(
        &self,
        retries: &Retries,
        delivery: &mut Delivery,
    ) -> Result<Decided, WorkError> {
        let since = Instant::now();
        let mut retry = retries.start(Need::Machine);
        loop {
            let shortage = match self.attempt(retries, delivery).await? {
                Attempted::Decided(decided) => return Ok(decided),
                Attempted::Short(shortage) => shortage,
            };
            let entry = &delivery.entry;
            let targets = [Target::Worker(retries.worker), Target::Queue(entry.queue.clone())];
            if since.elapsed() > MAX_SHORTAGE
                || retry.wait(shortage).await.is_err()
                || targets.iter().any(|target| self.pauses.is_paused(target))
            {
                let after = SHORTAGE_DELAY.mul_f64(fastrand::f64());
                return Ok(Decided::without_run(Settlement::Requeue { after }));
            }
            // The next run may take an hour, during which nothing is missing.
            retry.resolve();
        }
    }

    /// Begins the attempt of a delivery, runs the task, records the run, sends the emitted
    /// messages, and returns the decision.
    async fn attempt(
        &self,
        retries: &Retries,
        delivery: &mut Delivery,
    ) -> Result<Attempted, WorkError> {
        let entry = &delivery.entry;
        // The whole attempt uses this catalog, and so one version of all tasks.
        let catalog = self.catalog.get();
        let _admitted = match self.admission.admit(&catalog, entry) {
            Ok(admitted) => admitted,
            Err(settlement) => return Ok(Attempted::Decided(Decided::without_run(settlement))),
        };
        let checked = tokio::select! {
            checked = self.attempts.runner.check(&catalog, &entry.task) => checked,
            () = retries.drain.cancelled() => {
                let settlement = Settlement::Requeue { after: Duration::ZERO };
                return Ok(Attempted::Decided(Decided::without_run(settlement)));
            }
        };
        if let Err(error) = checked {
            return Ok(Attempted::Short(ShortageError::new(entry, chain(error).into())));
        }
        if let Some(settlement) = self.admission.refuse(&catalog, entry) {
            return Ok(Attempted::Decided(Decided::without_run(settlement)));
        }
        let begin = || self.journal.begin(&entry.id, &entry.task, delivery.attempt);
        let begun = retries.run(Need::Journal, begin).await?;
        let task = catalog.routes.task(&entry.task).map(Arc::as_ref);
        let policy = task.map_or_else(RetryPolicy::default, |task| task.manifest.retry.clone());
        let decided = match begun {
            Begun::Run { crashes } => {
                let planned =
                    Planned { catalog: &catalog, delivery, task, policy: &policy, crashes };
                return self.run(retries, &planned).await;
            }
            Begun::Wait { .. } => {
                let after = CRASH_DELAY.mul_f64(0.5 + fastrand::f64() / 2.0);
                Decided::without_run(Settlement::Requeue { after })
            }
            Begun::Succeeded => {
                let id = &entry.message.id;
                tracing::info!(
                    message.id = %id,
                    task.name = %entry.task,
                    "message {id} already had a successful run and is settled without another run",
                );
                // The daemon may have died after the run was recorded and before its messages were
                // sent. The remaining messages are sent now.
                self.send(retries, entry).await?;
                Decided::without_run(Settlement::Ack)
            }
            Begun::Ended { outcome, attempt, output } => {
                let decided = Decided::after_run(entry, &policy, &outcome, attempt, output);
                // The queue may have counted fewer attempts than the journal. So the delivery takes
                // the number of the attempt from the journal.
                delivery.attempt = attempt;
                decided
            }
        };
        Ok(Attempted::Decided(decided))
    }

    /// Runs and records an attempt, decides about the delivery, and sends the messages of the run.
    async fn run(&self, retries: &Retries, planned: &Planned<'_>) -> Result<Attempted, WorkError> {
        let Planned { catalog, delivery, task, policy, .. } = *planned;
        let run = self.attempts.run_and_record(retries, planned).await?;
        let entry = &delivery.entry;
        if let Outcome::Shortage { reason } = run.outcome {
            return Ok(Attempted::Short(ShortageError::new(entry, reason)));
        }
        let output = run.output.text.clone();
        let refused = match run.outcome {
            Outcome::Unavailable { .. } => self.admission.refuse(catalog, entry),
            _ => None,
        };
        let decided = match refused {
            Some(settlement) => Decided::without_run(settlement),
            None => Decided::after_run(entry, policy, &run.outcome, run.attempt, output),
        };
        self.attempts.report(&run, task, &decided.settlement);
        self.activity.count_run(&run);
        if let Some(task) = task {
            self.breakers.count(task, &run).await;
        }
        if !run.emitted.is_empty() {
            self.send(retries, entry).await?;
        }
        Ok(Attempted::Decided(decided))
    }

    async fn send(&self, retries: &Retries, entry: &Entry) -> Result<(), WorkError> {
        retries.run(Need::Outbox, || self.outbox.send(&entry.id)).await
    }
}

impl Decided {
    fn without_run(settlement: Settlement) -> Self {
        Self { settlement, stop: None }
    }

    /// Returns the decision after an attempt. A dead letter contains the output of its last run.
    fn after_run(
        entry: &Entry,
        policy: &RetryPolicy,
        outcome: &Outcome,
        attempt: u32,
        output: String,
    ) -> Self {
        let settlement = match policy.decide(outcome, attempt, fastrand::f64()) {
            Settlement::DeadLetter { reason, .. } => Settlement::DeadLetter { reason, output },
            settlement => settlement,
        };
        let stop = policy.stops_worker(outcome).then(|| {
            format!("task `{}` on message {}: {outcome}", entry.task, entry.message.id).into()
        });
        Self { settlement, stop }
    }
}
