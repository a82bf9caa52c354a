//! The RabbitMQ backend: queues that several hosts can share.
//!
//! To move an entry to another queue, the host publishes a copy, waits for the broker's confirm, and then
//! acknowledges the original. If the host crashes between these steps, the entry may be duplicated, but it is
//! not lost.
//!
//! Each worker has its own channel. RabbitMQ closes a channel after an error, so an error of one worker does
//! not affect the deliveries of the other workers.
//!
//! The modules in order, each using only earlier ones: `topology` (the queues on the broker), `headers`,
//! `outgoing` and `incoming` (an entry as a message of the broker), `declaration`, `ages`, `held`, `due`, `shared`,
//! `retries`, `claim`, `external`, `release`, `consumer`, `delays`, `dead_letters`, `plan`, `ack_timeout`.

mod ack_timeout;
mod ages;
mod claim;
mod consumer;
mod dead_letters;
mod declaration;
mod delays;
mod due;
mod external;
mod headers;
mod held;
mod incoming;
mod outgoing;
mod plan;
mod release;
mod retries;
mod shared;
mod topology;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join_all;
use loopabull_model::{Entry, QueueName, TaskName};

use crate::config::{QueueConfig, RabbitMqConfig};
use crate::dead_letter::{DeadLetter, Verdict};
use crate::depth::{Depth, Held, HeldTask, Release};
use crate::error::QueueError;
use outgoing::Outgoing;
use shared::Shared;
use topology::QueueRole;

pub use ack_timeout::{AckTimeout, AckTimeoutSource};
pub(crate) use claim::Claim;
pub(crate) use consumer::{Consumer, Received};
pub use declaration::Declaration;
pub use external::{Disposition, External};
pub use plan::{Change, Plan};

/// The queues in RabbitMQ.
#[derive(Debug)]
pub struct RabbitMq {
    shared: Arc<Shared>,
}

impl RabbitMq {
    /// Connects to the broker, and creates missing queues.
    pub(crate) async fn open(
        settings: &RabbitMqConfig,
        queues: &[QueueConfig],
    ) -> Result<Self, QueueError> {
        let rabbitmq = Self::connect(settings, queues).await?;
        let session = rabbitmq.shared.session().await?;
        for queue in queues {
            for role in QueueRole::permanent(queue) {
                rabbitmq.shared.declare(&session, &queue.name, &role).await?;
            }
        }
        Ok(rabbitmq)
    }

    /// Connects to the broker without creating queues.
    pub(crate) async fn connect(
        settings: &RabbitMqConfig,
        queues: &[QueueConfig],
    ) -> Result<Self, QueueError> {
        Ok(Self { shared: Arc::new(Shared::connect(settings, queues).await?) })
    }

    pub(crate) async fn publish(&self, entry: &Entry) -> Result<(), QueueError> {
        self.shared.publish(&Outgoing::new(entry)).await
    }

    pub(crate) async fn publish_all(&self, entries: &[&Entry]) -> Vec<Result<(), QueueError>> {
        let mut by_queue: BTreeMap<&QueueName, Vec<usize>> = BTreeMap::new();
        for (place, entry) in entries.iter().enumerate() {
            by_queue.entry(&entry.queue).or_default().push(place);
        }
        // One queue that accepts nothing delays no other.
        let published = by_queue.into_values().map(async |places| {
            let messages: Vec<_> =
                places.iter().map(|place| Outgoing::new(entries[*place])).collect();
            places.into_iter().zip(self.shared.publish_all(messages, None).await)
        });
        let mut results: Vec<_> = join_all(published).await.into_iter().flatten().collect();
        results.sort_unstable_by_key(|(place, _)| *place);
        results.into_iter().map(|(_, result)| result).collect()
    }

    pub(crate) fn consume(&self, queue: &QueueName) -> Consumer {
        Consumer::new(Arc::clone(&self.shared), queue)
    }

    pub(crate) async fn add_tasks(
        &self,
        queue: &QueueName,
        tasks: &[TaskName],
    ) -> Result<(), QueueError> {
        self.shared.try_held(queue, tasks).await
    }

    pub(crate) async fn release(
        &self,
        release: impl Fn(&TaskName) -> Release,
    ) -> Result<BTreeSet<HeldTask>, QueueError> {
        release::release(&self.shared, release).await
    }

    pub(crate) async fn end_delays(&self, queue: &QueueName) -> Result<u64, QueueError> {
        delays::end(&self.shared, queue).await
    }

    pub(crate) async fn judge_dead_letters(
        &self,
        queue: &QueueName,
        judge: impl FnMut(&DeadLetter) -> Verdict + Send,
    ) -> Result<u64, QueueError> {
        dead_letters::judge(&self.shared, queue, judge).await
    }

    pub(crate) async fn depth(&self, queue: &QueueName) -> Result<Depth, QueueError> {
        let session = self.shared.session().await?;
        let mut depth = Depth::default();
        for role in QueueRole::permanent(&self.shared.config(queue)) {
            let count = self.shared.count(&session, queue, &role).await?.unwrap_or(0);
            match role {
                QueueRole::Work | QueueRole::Retry => depth.waiting += count,
                QueueRole::Dead => depth.dead += count,
                QueueRole::Delay(_) | QueueRole::Held(_) => depth.delayed += count,
            }
        }
        depth.oldest = self.shared.ages.oldest(queue, depth.waiting);
        for task in self.shared.held.tasks_of(queue) {
            let role = QueueRole::Held(task.clone());
            let count = self.shared.count(&session, queue, &role).await?.unwrap_or(0);
            if count > 0 {
                depth.held.insert(task, Held { count, oldest: None });
            }
        }
        Ok(depth)
    }

    pub(crate) fn problem(&self) -> Option<String> {
        self.shared.problem()
    }

    pub(crate) async fn ack_timeout(&self, queue: &QueueName) -> Option<AckTimeout> {
        ack_timeout::ack_timeout(&self.shared, queue).await
    }
}
