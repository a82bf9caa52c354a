//! An attempt runs a task on one delivery.
//!
//! The run is recorded behind the worker, while the next attempt runs. The run of a task with state is recorded before the
//! attempt ends: the run conflicts if another run changed the state of the task that this run had read. A
//! conflicting run is recorded, and then repeated once while no other run of the task is in
//! progress. This module does not decide how the delivery is settled.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use loopabull_model::{
    Attempt, Emitted, Message, Outcome, RetryPolicy, Run, Settlement, Task, TaskKind,
};
use loopabull_queue::Delivery;
use loopabull_store::StoreError;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::journal::{Journal, Record};
use crate::observe::health::Need;
use crate::observe::metrics::Metrics;
use crate::tasks::catalog::Catalog;
use crate::work::cancellations::{Cancellable, Cancellations};
use crate::work::outbox::Outbox;
use crate::work::runner::{Call, Runner};
use crate::work::starts::Starts;
use crate::work::task_locks::TaskLocks;
use crate::work::worker::retry::Retries;

/// Runs tasks on deliveries.
pub(crate) struct Attempts {
    pub runner: Arc<Runner>,
    pub journal: Arc<Journal>,
    pub starts: Arc<Starts>,
    pub outbox: Arc<Outbox>,
    pub task_locks: TaskLocks,
    pub metrics: Arc<Metrics>,
    pub cancellations: Arc<Cancellations>,
    /// Token that cancels all runs in progress.
    pub cancel: CancellationToken,
}

/// An attempt that is about to start.
pub(super) struct Planned<'a> {
    pub catalog: &'a Catalog,
    pub delivery: &'a Delivery,
    /// The task of the delivery, if it is loaded.
    pub task: Option<&'a Task>,
    pub policy: &'a RetryPolicy,
    /// Number of daemons that died while they ran the entry.
    pub crashes: u32,
}

/// The run of an attempt.
pub(super) enum Ran {
    Unrecorded(Box<Record>),
    Recorded(Box<RecordedRun>),
}

/// A run in the journal.
pub(super) struct RecordedRun {
    pub run: Run,
    /// Whether the same transaction has sent its messages and settled the delivery.
    pub is_settled: bool,
}

impl Ran {
    pub(super) fn run(&self) -> &Run {
        match self {
            Self::Unrecorded(record) => &record.run,
            Self::Recorded(recorded) => &recorded.run,
        }
    }
}

impl Attempts {
    /// Runs a task. If the task has state, records the run, and if that conflicts with another run of the task, repeats
    /// it while no other run of the task is in progress.
    pub(super) async fn run(
        &self,
        retries: &Retries,
        planned: &Planned<'_>,
    ) -> Result<Ran, StoreError> {
        let message = &planned.delivery.entry.message.id;
        let begin = || self.cancellations.begin(retries.worker, message, &self.cancel);
        let run = begin();
        let has_state = planned.task.is_some_and(|task| task.manifest.grants.state.is_some());
        if !has_state {
            return Ok(Ran::Unrecorded(Box::new(
                self.run_once(retries.worker, &run, planned).await,
            )));
        }
        let task = &planned.delivery.entry.task;
        let recorded = {
            let _lock = unless_cancelled(&run, self.task_locks.shared(task)).await;
            self.run_and_record(retries, &run, planned).await?
        };
        if !matches!(recorded.run.outcome, Outcome::Conflict { .. }) {
            return Ok(Ran::Recorded(Box::new(recorded)));
        }
        drop(run);
        let run = begin();
        let _lock = unless_cancelled(&run, self.task_locks.exclusive(task)).await;
        self.report(&recorded.run, planned.task, &Settlement::Requeue { after: Duration::ZERO });
        Ok(Ran::Recorded(Box::new(self.run_and_record(retries, &run, planned).await?)))
    }

    /// Records runs, with retries, and returns them with their final outcomes. Holds `journal_works` while that fails.
    pub(super) async fn record(
        &self,
        retries: &Retries,
        records: Vec<Record>,
        journal_works: Option<&Mutex<()>>,
    ) -> Result<Vec<RecordedRun>, StoreError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let records = Arc::new(records);
        let record = || self.journal.record(Arc::clone(&records));
        // A task with state is recorded by the worker itself, which then runs nothing anyway.
        let changed = match journal_works {
            Some(works) => retries.run_holding(Need::Journal, works, record).await?,
            None => retries.run(Need::Begin, record).await?,
        };
        let records = Arc::unwrap_or_clone(records).into_iter().zip(changed);
        let runs = records.map(|(record, changed)| {
            let is_settled = record.queue.is_some() && changed.is_none();
            if is_settled {
                self.outbox.included(&record);
            }
            let mut run = record.run;
            if let Some(outcome) = changed {
                run.outcome = outcome;
                run.emitted.clear();
            }
            if record.ends_count {
                self.starts.end_count(&run);
            }
            RecordedRun { run, is_settled }
        });
        Ok(runs.collect())
    }

    /// Logs and counts a run. `task` is none if the task is not loaded.
    pub(super) fn report(&self, run: &Run, task: Option<&Task>, settlement: &Settlement) {
        log(run, settlement);
        self.metrics.count_run(run, task);
    }

    /// Runs a task and records the run, unless it could not start because the machine is short of something.
    async fn run_and_record(
        &self,
        retries: &Retries,
        run: &Cancellable<'_>,
        planned: &Planned<'_>,
    ) -> Result<RecordedRun, StoreError> {
        let mut record = self.run_once(retries.worker, run, planned).await;
        if matches!(record.run.outcome, Outcome::Shortage { .. }) {
            return Ok(RecordedRun { run: record.run, is_settled: false });
        }
        if record.run.outcome.is_success() {
            self.outbox.include(&mut record, planned.delivery, &Settlement::Ack);
        }
        let mut runs = self.record(retries, vec![record], None).await?;
        Ok(runs.pop().expect("each record has its run"))
    }

    async fn run_once(&self, worker: u32, run: &Cancellable<'_>, planned: &Planned<'_>) -> Record {
        let started_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let start = Instant::now();
        let attempt = self.attempt(run, planned).await;
        let duration = start.elapsed();
        let (entry, number) = (&planned.delivery.entry, planned.delivery.attempt);
        let message = &entry.message;
        let sent_at = i64::try_from(started_at.as_secs()).unwrap_or(i64::MAX);
        let emissions = attempt.effects.emitted.into_iter().enumerate();
        let sends: Vec<Message> = emissions
            .map(|(place, emission)| emission.into_message(entry, place, sent_at))
            .collect();
        let emitted =
            |message: &Message| Emitted { id: message.id.clone(), topic: message.topic.clone() };
        let task = planned.task;
        let run = Run {
            id: run.id.clone(),
            entry: entry.id.clone(),
            message_id: message.id.clone(),
            topic: message.topic.clone(),
            task: entry.task.clone(),
            kind: task.map_or(TaskKind::Playbook, |task| task.kind),
            attempt: number,
            worker,
            started_at_ms: i64::try_from(started_at.as_millis()).unwrap_or(i64::MAX),
            duration,
            outcome: attempt.outcome,
            output: attempt.output,
            notes: attempt.notes,
            grants: task.map(|task| task.manifest.grants.lines()).unwrap_or_default(),
            usage: attempt.usage,
            emitted: sends.iter().map(emitted).collect(),
            playbook: attempt.playbook,
        };
        let ends_count = self.starts.ends_count(&run);
        let (message, state) = (message.clone(), attempt.effects.state);
        Record { run, message, sends, state, ends_count, queue: None }
    }

    /// Runs the task. If the retry policy refuses the attempt, returns the outcome `Refused`
    /// instead.
    async fn attempt(&self, run: &Cancellable<'_>, planned: &Planned<'_>) -> Attempt {
        let (entry, attempt) = (&planned.delivery.entry, planned.delivery.attempt);
        if let Some(reason) = planned.policy.refuse(attempt, planned.crashes) {
            return Attempt::without_output(Outcome::Refused { reason });
        }
        let call = Call {
            task: &entry.task,
            message: &entry.message,
            run_id: &run.id,
            attempt,
            state: self.journal.state_of(&entry.task),
        };
        // It may have been cancelled while it waited for its turn.
        let mut attempt = match run.cancel.is_cancelled() {
            true => Attempt::without_output(Outcome::Cancelled),
            false => self.runner.run(planned.catalog, call, &run.cancel).await,
        };
        // A playbook that is cancelled can end in other ways too, and none of them is to be retried.
        if let Some(who) = run.end()
            && !attempt.outcome.is_success()
        {
            attempt.outcome = Outcome::Aborted { reason: format!("by {who}").into() };
        }
        attempt
    }
}

/// Waits for a lock, or until the run is cancelled, which then needs none.
async fn unless_cancelled<T>(run: &Cancellable<'_>, lock: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        lock = lock => Some(lock),
        () = run.cancel.cancelled() => None,
    }
}

/// Logs one line for a run.
fn log(run: &Run, settlement: &Settlement) {
    let settlement = settlement.as_str();
    let duration_ms = u64::try_from(run.duration.as_millis()).unwrap_or(u64::MAX);
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                run.id = %run.id,
                run.attempt = run.attempt,
                run.outcome = run.outcome.name(),
                run.duration_ms = duration_ms,
                message.id = %run.message_id,
                message.topic = %run.topic,
                task.name = %run.task,
                worker.number = run.worker,
                settlement,
                "{} on message {}: {}",
                run.task,
                run.message_id,
                run.outcome,
            )
        };
    }
    if run.outcome.is_success() || matches!(run.outcome, Outcome::Aborted { .. }) {
        line!(info);
    } else {
        line!(warn);
    }
}
