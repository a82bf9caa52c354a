//! What all answers of the operator's port share: the parts of the daemon on which they report.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use loopabull_model::{QueueName, TaskName};
use loopabull_queue::{Depth, Queues};
use loopabull_store::StoreError;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::token::Token;
use crate::config::Warnings;
use crate::explain::{Explainer, Explanation};
use crate::journal::Journal;
use crate::observe::activity::Activity;
use crate::observe::arrivals::Arrivals;
use crate::observe::health::Health;
use crate::observe::history::{self, History};
use crate::observe::metrics::Metrics;
use crate::observe::observation::{Observation, Space};
use crate::observe::status::Status;
use crate::tasks::catalog::CurrentCatalog;
use crate::work::audit::Audit;
use crate::work::cancellations::Cancellations;
use crate::work::pauses::Pauses;

/// The problem if the depth of a queue cannot be read.
pub(super) const UNREAD: &str = "queue: cannot read the depth of at least one queue";
/// Time limit for reading the depths of the queues. After this time, a response contains those that were read.
const DEPTH_TIMEOUT: Duration = Duration::from_secs(3);
/// Time limit for reading how much space the disk has.
const SPACE_TIMEOUT: Duration = Duration::from_secs(1);

/// The parts of the daemon on which the operator's port reports.
pub(crate) struct Shared {
    pub health: Arc<Health>,
    pub catalog: Arc<CurrentCatalog>,
    pub activity: Arc<Activity>,
    pub metrics: Arc<Metrics>,
    pub queues: Arc<Queues>,
    pub names: Vec<QueueName>,
    pub pauses: Arc<Pauses>,
    pub cancellations: Arc<Cancellations>,
    /// Host names under which the port may be addressed, besides IP addresses and `localhost`.
    pub allowed_hosts: Vec<String>,
    pub journal: Arc<Journal>,
    pub arrivals: Arc<Arrivals>,
    pub history: Arc<History>,
    /// The token that every request needs, if there is one.
    pub token: Option<Token>,
    /// The token of operators, who may act. Without one, nobody may.
    pub operate: Option<Token>,
    /// The key of commands, which come to the socket: see `daemon::socket`.
    pub key: Token,
    pub audit: Audit,
    /// Locked while dead letters are looked through.
    pub looking_at_dead_letters: tokio::sync::Mutex<()>,
    pub drain: CancellationToken,
    /// The state directory.
    pub state: PathBuf,
    /// The limits for warnings.
    pub limits: Warnings,
    /// Locked while the metrics are written, because their values are set just before.
    pub encoding: parking_lot::Mutex<()>,
}

impl Shared {
    /// Adds a sample to the history at regular times. Never returns.
    pub(super) async fn keep_history(&self) {
        let mut interval = tokio::time::interval(history::INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let at = interval.tick().await;
            let depths = self.depths().await;
            self.history.add(at, self.activity.snapshot().counts, &depths);
            let catalog = self.catalog.get();
            self.activity.keep_failing(|task| catalog.routes.task(task).is_some());
        }
    }

    /// Returns what the daemon sees of itself now.
    pub(super) async fn observe(&self) -> Observation {
        let depths = self.depths().await;
        let trend = |name: &QueueName| Some((name.clone(), self.history.trend(name)?));
        let state = self.state.clone();
        let space = tokio::task::spawn_blocking(move || Space::read(&state));
        let space = tokio::time::timeout(SPACE_TIMEOUT, space).await;
        Observation {
            is_complete: depths.len() == self.names.len(),
            trends: self.names.iter().filter_map(trend).collect(),
            activity: self.activity.snapshot(),
            pauses: self.pauses.current(),
            // An error is a timeout, or the end of the runtime.
            space: space.map(Result::unwrap_or_default).unwrap_or_default(),
            problems: self.problems(&depths),
            limits: self.limits,
            depths,
        }
    }

    /// Returns the current status.
    pub(super) async fn status(&self) -> Status {
        let catalog = self.catalog.get();
        let why_held = |task: &TaskName| match catalog.refused(task) {
            Some(reason) => format!("refused: {reason}"),
            None => "held by another host, or about to be released".to_owned(),
        };
        let draining = self.drain.is_cancelled();
        let mut status = Status::new(self.observe().await, why_held, draining);
        for worker in &mut status.workers {
            if let Some(work) = &mut worker.work {
                work.run = self.cancellations.of_worker(worker.number, &work.message_id);
            }
        }
        status
    }

    /// Explains a message by its id, or else a topic.
    pub(super) async fn explain(&self, about: &str) -> Result<Explanation, StoreError> {
        let (catalog, pauses) = (self.catalog.get(), self.pauses.current());
        let explainer = Explainer {
            routes: &catalog.routes,
            refused: |task: &TaskName| catalog.refused(task),
            pauses: &pauses,
            journal: &self.journal,
            arrivals: Some(&self.arrivals),
            queues: Some(&self.queues),
        };
        explainer.explain(about).await
    }

    /// Returns the depth of each queue that can be read within [`DEPTH_TIMEOUT`].
    async fn depths(&self) -> Vec<(QueueName, Depth)> {
        // One after the other: a slow broker would answer for none in time if it were asked for all at once.
        let until = tokio::time::Instant::now() + DEPTH_TIMEOUT;
        let mut depths = Vec::new();
        for name in &self.names {
            if let Ok(Ok(depth)) = tokio::time::timeout_at(until, self.queues.depth(name)).await {
                depths.push((name.clone(), depth));
            }
        }
        depths
    }

    /// Returns one line for each problem. `depths` are the depths that could be read.
    fn problems(&self, depths: &[(QueueName, Depth)]) -> Vec<String> {
        let mut problems = self.health.problems();
        problems.extend(self.activity.problems());
        problems.extend(self.catalog.get().problem_lines());
        problems.extend(self.queues.problem());
        if self.drain.is_cancelled() {
            problems.push("draining: no new messages are received".to_owned());
        }
        if depths.len() < self.names.len() {
            problems.push(UNREAD.to_owned());
        }
        problems
    }
}
