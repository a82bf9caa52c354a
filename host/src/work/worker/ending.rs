//! The endings of attempts: records the runs, decides the settlements, sends the emitted messages, and settles the
//! deliveries.
//!
//! That happens behind the worker, which runs its next delivery meanwhile. All endings that wait are taken in one step, so
//! that they share one commit of the journal. They stay in their order.

use std::sync::Arc;

use loopabull_model::{Entry, Outcome, RetryPolicy, Run, Settlement, Task, chain};
use loopabull_queue::Delivery;
use tokio::sync::SemaphorePermit;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::observe::activity::{Activity, Busy};
use crate::observe::health::Need;
use crate::work::error::WorkError;
use crate::work::in_progress::EntryInProgress;
use crate::work::outbox::Outbox;
use crate::work::starts::InProgress;
use crate::work::worker::attempt::{Attempts, Ran};
use crate::work::worker::retry::Retries;
use crate::work::worker::settle::Settler;

/// Maximum number of endings in one step.
const MAX_GROUP: usize = 256;

/// Ends the attempts of all workers.
pub(crate) struct Endings {
    pub attempts: Arc<Attempts>,
    pub outbox: Arc<Outbox>,
    pub settler: Settler,
    pub activity: Arc<Activity>,
}

/// A delivery whose attempt has ended.
pub(super) struct Ending<'a> {
    pub delivery: Delivery,
    pub rest: Rest<'a>,
    pub _busy: Busy<'a>,
    pub _place: SemaphorePermit<'a>,
}

/// What remains to be done with a delivery.
#[derive(Default)]
pub(super) struct Rest<'a> {
    ran: Option<Ran>,
    /// The task of the run, if it is loaded.
    task: Option<Arc<Task>>,
    /// The settlement. `None` if the outcome of the run decides.
    settlement: Option<Settlement>,
    /// Whether messages may wait in the outbox although there was no run.
    sends: bool,
    /// The attempt, until its run is recorded.
    attempt: Option<InProgress>,
    _entry: Option<EntryInProgress<'a>>,
}

impl<'a> Rest<'a> {
    /// The delivery is only settled.
    pub(super) fn settle(settlement: Settlement) -> Self {
        Self { settlement: Some(settlement), ..Self::default() }
    }

    /// The messages of an earlier run are sent, and the delivery is acknowledged.
    pub(super) fn send_and_acknowledge() -> Self {
        Self { sends: true, ..Self::settle(Settlement::Ack) }
    }

    /// A run is recorded if it is not yet, and the delivery is settled as its outcome decides, or as `settlement` says.
    pub(super) fn of_run(
        ran: Ran,
        task: Option<Arc<Task>>,
        settlement: Option<Settlement>,
        attempt: InProgress,
    ) -> Self {
        Self { ran: Some(ran), task, settlement, attempt: Some(attempt), ..Self::default() }
    }

    /// The entry is in progress until the delivery is settled.
    pub(super) fn keeping(self, entry: EntryInProgress<'a>) -> Self {
        Self { _entry: Some(entry), ..self }
    }
}

impl Endings {
    /// Ends attempts until there are no further ones.
    pub(super) async fn run(&self, retries: &Retries, mut waiting: UnboundedReceiver<Ending<'_>>) {
        let mut endings = Vec::new();
        while waiting.recv_many(&mut endings, MAX_GROUP).await > 0 {
            if let Err(error) = self.end(retries, std::mem::take(&mut endings)).await {
                let (worker, error) = (retries.worker, chain(error));
                tracing::warn!(
                    worker.number = worker,
                    "worker {worker} leaves its last messages to the next daemon: {error}"
                );
            }
        }
    }

    async fn end(&self, retries: &Retries, mut endings: Vec<Ending<'_>>) -> Result<(), WorkError> {
        self.record(retries, &mut endings).await?;
        let mut settlements = Vec::with_capacity(endings.len());
        for Ending { delivery, rest, .. } in &mut endings {
            let run = rest.ran.as_ref().map(Ran::run);
            let settlement = match (rest.settlement.take(), run) {
                (Some(settlement), _) => settlement,
                (None, Some(run)) => settlement_of(rest.task.as_deref(), run),
                (None, None) => unreachable!("a delivery without a run has its settlement"),
            };
            if let Some(run) = run {
                self.attempts.report(run, rest.task.as_deref(), &settlement);
                self.activity.count_run(run);
            }
            if rest.sends || run.is_some_and(|run| !run.emitted.is_empty()) {
                self.send(retries, &delivery.entry).await?;
            }
            settlements.push(settlement);
        }
        let deliveries = endings.iter().map(|ending| &ending.delivery);
        Ok(self.settler.settle(retries, deliveries.zip(settlements).collect()).await?)
    }

    /// Records the runs that are not recorded yet.
    async fn record(&self, retries: &Retries, endings: &mut [Ending<'_>]) -> Result<(), WorkError> {
        let (mut places, mut records) = (Vec::new(), Vec::new());
        for (place, Ending { rest, .. }) in endings.iter_mut().enumerate() {
            match rest.ran.take() {
                Some(Ran::Unrecorded(record)) => {
                    places.push(place);
                    records.push(*record);
                }
                ran => rest.ran = ran,
            }
        }
        let runs = self.attempts.record(retries, records).await?;
        for (place, run) in places.into_iter().zip(runs) {
            endings[place].rest.ran = Some(Ran::Recorded(Box::new(run)));
        }
        endings.iter_mut().for_each(|ending| ending.rest.attempt = None);
        Ok(())
    }

    async fn send(&self, retries: &Retries, entry: &Entry) -> Result<(), WorkError> {
        retries.run(Need::Outbox, || self.outbox.send(&entry.id)).await
    }
}

/// Returns the settlement after a run.
fn settlement_of(task: Option<&Task>, run: &Run) -> Settlement {
    let policy = task.map(|task| &task.manifest.retry);
    let policy = policy.map_or_else(RetryPolicy::default, Clone::clone);
    decide(&policy, &run.outcome, run.attempt, &run.output.text)
}

/// Returns the settlement after an attempt. A dead letter contains the output of its last run.
pub(super) fn decide(
    policy: &RetryPolicy,
    outcome: &Outcome,
    attempt: u32,
    output: &str,
) -> Settlement {
    match policy.decide(outcome, attempt, fastrand::f64()) {
        Settlement::DeadLetter { reason, .. } => {
            Settlement::DeadLetter { reason, output: output.to_owned() }
        }
        settlement => settlement,
    }
}
