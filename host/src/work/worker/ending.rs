//! The endings of attempts: decides the settlements, records the runs, sends the emitted messages, and settles the
//! deliveries.
//!
//! That happens behind the worker, which runs its next delivery meanwhile, in two stages: runs are recorded, and behind
//! that the rest is done. So a queue or a bus that accepts nothing delays no record. Each stage takes all endings that
//! wait in one step, so that they share a commit. Runs are recorded in their order. With the embedded queue, the first stage
//! also sends and settles, in the same transaction. Otherwise acknowledgements may go before other settlements.

use std::sync::Arc;

use loopabull_model::{Entry, Outcome, RetryPolicy, Run, Settlement, Task, chain};
use loopabull_queue::Delivery;
use loopabull_store::StoreError;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{Mutex, SemaphorePermit};

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
    pub in_flight: InFlight<'a>,
}

/// The delivery is among those that its worker has in flight.
pub(super) struct InFlight<'a> {
    pub _busy: Busy<'a>,
    pub _permits: SemaphorePermit<'a>,
}

/// The remaining steps of a delivery.
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
    /// The entry, until its run is recorded. After that the journal recognises it.
    entry: Option<EntryInProgress<'a>>,
}

/// A delivery whose run is recorded.
struct Recorded<'a> {
    delivery: Delivery,
    settlement: Settlement,
    sends: bool,
    _in_flight: InFlight<'a>,
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

    /// Keeps the entry in progress until its run is recorded.
    pub(super) fn keeping(self, entry: EntryInProgress<'a>) -> Self {
        Self { entry: Some(entry), ..self }
    }

    /// Returns whether the run was taken to be recorded, and could not be.
    fn is_lost(&self) -> bool {
        self.attempt.is_some() && self.ran.is_none()
    }

    /// Returns whether the entry is held for its task.
    pub(super) fn is_held(&self) -> bool {
        self.settlement == Some(Settlement::Hold)
    }
}

impl Endings {
    /// Ends attempts until there are no further ones. While a run cannot be recorded, holds `journal_works`, so that the
    /// worker runs no other one.
    pub(super) async fn run<'a>(
        &self,
        retries: &Retries,
        journal_works: &Mutex<()>,
        ended: UnboundedReceiver<Ending<'a>>,
    ) {
        let (recorded, waiting) = mpsc::unbounded_channel();
        let record = self.record_all(retries, journal_works, ended, recorded);
        tokio::join!(record, self.settle_all(retries, waiting));
    }

    async fn record_all<'a>(
        &self,
        retries: &Retries,
        journal_works: &Mutex<()>,
        mut ended: UnboundedReceiver<Ending<'a>>,
        recorded: UnboundedSender<Recorded<'a>>,
    ) {
        let mut endings = Vec::new();
        while ended.recv_many(&mut endings, MAX_GROUP).await > 0 {
            if let Err(error) = self.record(retries, journal_works, &mut endings).await {
                // Their messages are redelivered, and run again. They have ended: that is no crash.
                let lost = endings.extract_if(.., |ending| ending.rest.is_lost());
                lost.filter_map(|ending| ending.rest.attempt).for_each(InProgress::end);
                let (worker, error) = (retries.worker, chain(error));
                tracing::warn!(
                    worker.number = worker,
                    "worker {worker} could not record its last runs: {error}"
                );
            }
            for unsettled in endings.drain(..).filter_map(|ending| self.conclude(ending)) {
                drop(recorded.send(unsettled));
            }
        }
    }

    /// Records the runs that are not recorded yet.
    async fn record(
        &self,
        retries: &Retries,
        journal_works: &Mutex<()>,
        endings: &mut [Ending<'_>],
    ) -> Result<(), StoreError> {
        let (mut unrecorded, mut records) = (Vec::new(), Vec::new());
        for (number, Ending { delivery, rest, .. }) in endings.iter_mut().enumerate() {
            match rest.ran.take() {
                Some(Ran::Unrecorded(mut record)) => {
                    let settlement = rest.settlement.clone();
                    let settlement = settlement
                        .unwrap_or_else(|| settlement_of(rest.task.as_deref(), &record.run));
                    self.outbox.include(&mut record, delivery, &settlement);
                    unrecorded.push(number);
                    records.push(*record);
                }
                ran => rest.ran = ran,
            }
        }
        let runs = self.attempts.record(retries, records, Some(journal_works)).await?;
        for (number, recorded) in unrecorded.into_iter().zip(runs) {
            endings[number].rest.ran = Some(Ran::Recorded(Box::new(recorded)));
        }
        Ok(())
    }

    /// Ends the attempt of a recorded run. Returns the delivery with its settlement, unless it is settled.
    fn conclude<'a>(&self, ending: Ending<'a>) -> Option<Recorded<'a>> {
        let Ending { delivery, rest, in_flight } = ending;
        if let Some(attempt) = rest.attempt {
            attempt.end();
        }
        let run = rest.ran.as_ref().map(Ran::run);
        let task = rest.task.as_deref();
        let settlement = match (rest.settlement, run) {
            (Some(settlement), _) => settlement,
            (None, Some(run)) => settlement_of(task, run),
            (None, None) => unreachable!("a delivery without a run has its settlement"),
        };
        let mut sends = rest.sends;
        if let Some(run) = run {
            self.attempts.report(run, task, &settlement);
            self.activity.count_run(run);
            sends |= !run.emitted.is_empty();
        }
        if matches!(rest.ran, Some(Ran::Recorded(recorded)) if recorded.is_settled) {
            // Another worker may receive the entry at once.
            drop(rest.entry);
            delivery.end(&settlement);
            return None;
        }
        Some(Recorded { delivery, settlement, sends, _in_flight: in_flight })
    }

    async fn settle_all(&self, retries: &Retries, mut waiting: UnboundedReceiver<Recorded<'_>>) {
        let mut recorded = Vec::new();
        while waiting.recv_many(&mut recorded, MAX_GROUP).await > 0 {
            if let Err(error) = self.settle(retries, &recorded).await {
                let (worker, error) = (retries.worker, chain(error));
                tracing::warn!(
                    worker.number = worker,
                    "worker {worker} leaves its last messages to the next daemon: {error}"
                );
            }
            recorded.clear();
        }
    }

    /// Sends the messages of runs, and settles their deliveries. A delivery whose messages cannot be sent is not settled.
    async fn settle(&self, retries: &Retries, recorded: &[Recorded<'_>]) -> Result<(), WorkError> {
        // Acknowledgements of runs that emitted nothing do not wait for the sending of others.
        let is_ready =
            |recorded: &&Recorded<'_>| !recorded.sends && recorded.settlement == Settlement::Ack;
        let ready = recorded.iter().filter(is_ready);
        let ready = ready.map(|recorded| (&recorded.delivery, Settlement::Ack)).collect();
        let mut result = self.settler.settle(retries, ready).await.map_err(WorkError::from);
        let mut settlements = Vec::new();
        let timeout = self.settler.timeout();
        tokio::pin!(timeout);
        let mut is_late = false;
        let others = recorded.iter().filter(|recorded| !is_ready(recorded));
        for Recorded { delivery, settlement, sends, .. } in others {
            if *sends && !is_late {
                let sent = tokio::select! {
                    sent = self.send(retries, &delivery.entry) => sent,
                    () = &mut timeout => {
                        is_late = true;
                        continue;
                    }
                };
                if sent.is_err() {
                    result = sent;
                    continue;
                }
            } else if *sends {
                continue;
            }
            settlements.push((delivery, settlement.clone()));
        }
        if is_late {
            let worker = retries.worker;
            tracing::warn!(
                worker.number = worker,
                "worker {worker} leaves emitted messages to the next daemon: no queue took them in time"
            );
        }
        result.and(self.settler.settle(retries, settlements).await.map_err(WorkError::from))
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
