//! Runs the attempt of one delivery, from its admission to the end of the run.
//!
//! The steps of a delivery have a fixed order: admit the delivery, mark that an attempt begins, run the task,
//! record the run, decide the settlement, send the emitted messages, and settle the delivery. So a
//! run starts only after its beginning is marked, and a delivery is settled only after its
//! run is in the journal. This module takes the steps up to the run. The others follow behind the worker
//! ([`Endings`](super::ending::Endings)), which runs its next delivery meanwhile.

use std::future::ready;
use std::sync::Arc;
use std::time::{Duration, Instant};

use loopabull_model::{
    Entry, MessageId, Outcome, PausedBy, Reason, RetryPolicy, Settlement, Target, TaskName, chain,
};
use loopabull_queue::Delivery;
use tokio::sync::SemaphorePermit;

use crate::observe::activity::Activity;
use crate::observe::health::Need;
use crate::tasks::catalog::CurrentCatalog;
use crate::work::breakers::Breakers;
use crate::work::error::WorkError;
use crate::work::pauses::Pauses;
use crate::work::starts::{Begun, Starts};
use crate::work::worker::admission::Admission;
use crate::work::worker::attempt::{Attempts, Planned};
use crate::work::worker::ending::{Ending, Endings, InFlight, Rest, decide};
use crate::work::worker::retry::Retries;

/// Delay of an entry that was running when two daemons died. The delay is shortened at random by up
/// to a half, so that the entries that were running do not run at the same time again.
const CRASH_DELAY: Duration = Duration::from_secs(5);

/// Time after which a worker does not wait again with a delivery while the machine is short of something. With
/// the last wait of the back-off, at most 15 s, that of one delivery fits into the margin by which the acknowledgement
/// timeout of a broker must exceed the timeouts of the tasks.
const MAX_SHORTAGE: Duration = Duration::from_secs(10);

/// Maximum delay of a delivery that the worker requeues after such a time.
const SHORTAGE_DELAY: Duration = Duration::from_secs(2);

/// Processes the deliveries of all workers.
pub(crate) struct Deliveries {
    pub catalog: Arc<CurrentCatalog>,
    pub admission: Admission,
    pub starts: Arc<Starts>,
    pub attempts: Arc<Attempts>,
    pub endings: Endings,
    pub breakers: Arc<Breakers>,
    pub pauses: Arc<Pauses>,
    pub activity: Arc<Activity>,
}

/// The result of an attempt.
enum Attempted<'a> {
    Ended(Rest<'a>),
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

impl Deliveries {
    /// Runs the task of a delivery, unless it must not run. The delivery holds `permits` until it is settled.
    pub(super) async fn process<'a>(
        &'a self,
        retries: &Retries,
        mut delivery: Delivery,
        permits: SemaphorePermit<'a>,
    ) -> Result<Ending<'a>, WorkError> {
        let in_flight =
            InFlight { _busy: self.activity.start(retries.worker, &delivery), _permits: permits };
        let rest = self.attempt_until_started(retries, &mut delivery).await?;
        Ok(Ending { delivery, rest, in_flight })
    }

    /// Attempts a delivery. While the machine is short of something that a run needs,
    /// the worker keeps its delivery, receives no other one, and tries again. The delivery is requeued if
    /// the daemon drains, if the queue or the worker is paused, or after [`MAX_SHORTAGE`].
    async fn attempt_until_started(
        &self,
        retries: &Retries,
        delivery: &mut Delivery,
    ) -> Result<Rest<'_>, WorkError> {
        let since = Instant::now();
        let mut retry = retries.start(Need::Machine);
        loop {
            let shortage = match self.attempt(retries, delivery).await? {
                Attempted::Ended(rest) => return Ok(rest),
                Attempted::Short(shortage) => shortage,
            };
            let entry = &delivery.entry;
            let targets = [Target::Worker(retries.worker), Target::Queue(entry.queue.clone())];
            if since.elapsed() > MAX_SHORTAGE
                || retry.wait(shortage).await.is_err()
                || targets.iter().any(|target| self.pauses.is_paused(target))
            {
                let after = SHORTAGE_DELAY.mul_f64(fastrand::f64());
                return Ok(Rest::settle(Settlement::Requeue { after }));
            }
            // The next run may take an hour, during which nothing is missing.
            retry.resolve();
        }
    }

    /// Begins the attempt of a delivery, and runs the task.
    async fn attempt(
        &self,
        retries: &Retries,
        delivery: &mut Delivery,
    ) -> Result<Attempted<'_>, WorkError> {
        let entry = &delivery.entry;
        let settle = |settlement| Ok(Attempted::Ended(Rest::settle(settlement)));
        // The whole attempt uses this catalog, and so one version of all tasks.
        let catalog = self.catalog.get();
        let (entry_in_progress, _by_breaker) = match self.admission.admit(&catalog, entry) {
            Ok(admitted) => admitted,
            Err(settlement) => return settle(settlement),
        };
        let checked = tokio::select! {
            checked = self.attempts.runner.check(&catalog, &entry.task) => checked,
            () = retries.drain.cancelled() => {
                return settle(Settlement::Requeue { after: Duration::ZERO });
            }
        };
        if let Err(error) = checked {
            return Ok(Attempted::Short(ShortageError::new(entry, chain(error).into())));
        }
        if let Some(settlement) = self.admission.refuse(&catalog, entry) {
            return settle(settlement);
        }
        let has_runs = delivery.has_runs;
        let begin = || ready(self.starts.begin(&entry.id, &entry.task, delivery.attempt, has_runs));
        let task = catalog.routes.task(&entry.task);
        let policy = task.map_or_else(RetryPolicy::default, |task| task.manifest.retry.clone());
        let rest = match retries.run(Need::Begin, begin).await? {
            Begun::Run { crashes, in_progress: attempt } => {
                let planned = Planned {
                    catalog: &catalog,
                    delivery,
                    task: task.map(Arc::as_ref),
                    policy: &policy,
                    crashes,
                };
                let ran = match self.attempts.run(retries, &planned).await {
                    Ok(ran) => ran,
                    Err(error) => {
                        attempt.end();
                        return Err(error.into());
                    }
                };
                let run = ran.run();
                if let Outcome::Shortage { reason } = &run.outcome {
                    attempt.end();
                    return Ok(Attempted::Short(ShortageError::new(entry, reason.clone())));
                }
                // The breaker and the pause of the worker apply to the next run already.
                if let Some(task) = task {
                    self.breakers.count(task, run).await;
                }
                self.stop_after(retries, entry, &policy, &run.outcome).await;
                let refused = match run.outcome {
                    Outcome::Unavailable { .. } => self.admission.refuse(&catalog, entry),
                    _ => None,
                };
                Rest::of_run(ran, task.cloned(), refused, attempt)
            }
            Begun::Wait => {
                let after = CRASH_DELAY.mul_f64(0.5 + fastrand::f64() / 2.0);
                Rest::settle(Settlement::Requeue { after })
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
                Rest::send_and_acknowledge()
            }
            Begun::Ended { outcome, attempt, output } => {
                self.stop_after(retries, entry, &policy, &outcome).await;
                // The queue may have counted fewer attempts than the journal. So the delivery takes
                // the number of the attempt from the journal.
                delivery.attempt = attempt;
                Rest::settle(decide(&policy, &outcome, attempt, &output))
            }
        };
        Ok(Attempted::Ended(rest.keeping(entry_in_progress)))
    }

    /// Stops the worker if the policy says so for this outcome.
    async fn stop_after(
        &self,
        retries: &Retries,
        entry: &Entry,
        policy: &RetryPolicy,
        outcome: &Outcome,
    ) {
        if policy.stops_worker(outcome) {
            let reason =
                format!("task `{}` on message {}: {outcome}", entry.task, entry.message.id);
            let target = Target::Worker(retries.worker);
            self.pauses.pause_automatically(target, PausedBy::Daemon, &reason.into()).await;
        }
    }
}
