//! What all answers of the operator's port share: the parts of the daemon on which they report.

use std::sync::Arc;
use std::time::Duration;

use loopabull_model::{QueueName, TaskName};
use loopabull_queue::{Depth, Queues};
use loopabull_store::StoreError;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::token::Token;
use crate::explain::{Explainer, Explanation};
use crate::journal::Journal;
use crate::observe::activity::Activity;
use crate::observe::arrivals::Arrivals;
use crate::observe::health::Health;
use crate::observe::history::{self, History};
use crate::observe::metrics::Metrics;
use crate::observe::status::Status;
use crate::tasks::catalog::CurrentCatalog;
use crate::work::audit::Audit;
use crate::work::pauses::Pauses;

/// Time limit for reading the depths of the queues. After this time, a response contains no depths.
const DEPTH_TIMEOUT: Duration = Duration::from_secs(3);

/// The parts of the daemon on which the operator's port reports.
pub(crate) struct Shared {
    pub health: Arc<Health>,
    pub catalog: Arc<CurrentCatalog>,
    pub activity: Arc<Activity>,
    pub metrics: Arc<Metrics>,
    pub queues: Arc<Queues>,
    pub names: Vec<QueueName>,
    pub pauses: Arc<Pauses>,
    /// Host names under which the port may be addressed, besides IP addresses and `localhost`.
    pub allowed_hosts: Vec<String>,
    pub journal: Arc<Journal>,
    pub arrivals: Arc<Arrivals>,
    pub history: Arc<History>,
    /// The token that every request needs, if there is one.
    pub token: Option<Token>,
    /// The token of operators, who may act. Without one, nobody may.
    pub operate: Option<Token>,
    pub audit: Audit,
    /// Locked while dead letters are looked through.
    pub looking_at_dead_letters: tokio::sync::Mutex<()>,
    pub drain: CancellationToken,
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
        }
    }

    /// Returns the current status.
    pub(super) async fn status(&self) -> Status {
        let depths = self.depths().await;
        let activity = self.activity.snapshot();
        let (problems, catalog) = (self.problems(&depths), self.catalog.get());
        let why_held = |task: &TaskName| match catalog.refused(task) {
            Some(reason) => format!("refused: {reason}"),
            None => "held by another host, or about to be released".to_owned(),
        };
        let draining = self.drain.is_cancelled();
        Status::new(activity, depths, &self.pauses.current(), why_held, draining, problems)
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

    /// Returns the depth of each queue that can be read, or no depths after [`DEPTH_TIMEOUT`].
    pub(super) async fn depths(&self) -> Vec<(QueueName, Depth)> {
        let read = async {
            let mut depths = Vec::new();
            for name in &self.names {
                if let Ok(depth) = self.queues.depth(name).await {
                    depths.push((name.clone(), depth));
                }
            }
            depths
        };
        tokio::time::timeout(DEPTH_TIMEOUT, read).await.unwrap_or_default()
    }

    /// Returns one line for each problem. `depths` are the depths that could be read.
    pub(super) fn problems(&self, depths: &[(QueueName, Depth)]) -> Vec<String> {
        let mut problems = self.health.problems();
        problems.extend(self.activity.problems());
        problems.extend(self.catalog.get().problem_lines());
        problems.extend(self.queues.problem());
        if self.drain.is_cancelled() {
            problems.push("draining: no new messages are received".to_owned());
        }
        problems.extend(self.unread(depths));
        problems
    }

    /// Returns a line if the depth of a queue could not be read.
    pub(super) fn unread(&self, depths: &[(QueueName, Depth)]) -> Option<String> {
        (depths.len() < self.names.len())
            .then(|| "queue: cannot read the depth of at least one queue".to_owned())
    }
}
