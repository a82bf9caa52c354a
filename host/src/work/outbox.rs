//! The outbox: messages that tasks send, on their way from the journal to the queues, and to a bus.
//!
//! A message is in the journal from the moment its run is recorded until every task that wants it has
//! it in its queue. So none is lost, and none comes from a failed run. After a crash in between, the
//! next daemon sends the same messages again under the same ids: here each is processed once; on a
//! bus the consumers have to deduplicate by id. [`BusPublisher`](super::bus_publisher::BusPublisher)
//! publishes on the bus separately, so that a bus that is down keeps no worker waiting.
//!
//! Before it on the path of a message: [`Journal::record`]. After it: [`Queues::publish`].

use std::sync::Arc;

use loopabull_model::{Entry, EntryId, Message};
use loopabull_queue::{Backoff, Queues};
use tokio_util::sync::CancellationToken;

use crate::error::chain;
use crate::journal::{AfterQueues, Journal};
use crate::observe::activity::Activity;
use crate::observe::health::{Health, Part};
use crate::observe::metrics::{ByTask, Metrics};
use crate::tasks::catalog::CurrentCatalog;
use crate::work::error::WorkError;

/// Sends the messages of tasks to the queues.
pub(crate) struct Outbox {
    pub journal: Arc<Journal>,
    pub queues: Arc<Queues>,
    pub catalog: Arc<CurrentCatalog>,
    pub metrics: Arc<Metrics>,
    pub activity: Arc<Activity>,
    /// Where the messages go after the queues.
    pub after_queues: AfterQueues,
}

impl Outbox {
    /// Sends the messages that the run on an entry left in the journal. It can be repeated after an
    /// error.
    pub(crate) async fn send(&self, entry: &EntryId) -> Result<(), WorkError> {
        let messages = self.journal.outbox(entry).await?;
        for message in &messages {
            self.publish(message).await?;
        }
        if !messages.is_empty() {
            self.journal.set_queued(entry, self.after_queues).await?;
        }
        // A send that fails is repeated whole, so nothing is counted before it has succeeded.
        messages.iter().for_each(|message| self.count(message));
        Ok(())
    }

    /// Sends the messages that earlier daemons recorded and did not send, with retries; then waits
    /// until the daemon drains, because a part that returns earlier ends the daemon.
    pub(crate) async fn run(self: Arc<Self>, health: Arc<Health>, drain: CancellationToken) {
        let condition = health.condition(Part::Outbox);
        let mut backoff = Backoff::default();
        while !drain.is_cancelled() {
            let Err(error) = self.send_unsent().await else { break };
            let error = chain(error);
            tracing::error!("cannot send the messages of earlier runs: {error}; retrying");
            condition.report(error);
            backoff.pause(&drain).await;
        }
        condition.resolve();
        drain.cancelled().await;
    }

    async fn send_unsent(&self) -> Result<(), WorkError> {
        for entry in self.journal.unsent().await? {
            self.send(&entry).await?;
        }
        Ok(())
    }

    async fn publish(&self, message: &Message) -> Result<(), WorkError> {
        for task in self.catalog.get().routes.resolve(&message.topic) {
            let entry = Entry::new(EntryId::derived(message, &task.name), &task, message);
            self.queues.publish(&entry).await?;
        }
        Ok(())
    }

    /// Counts a message and its entries.
    fn count(&self, message: &Message) {
        let tasks = self.catalog.get().routes.resolve(&message.topic);
        self.metrics.emitted.inc();
        if tasks.is_empty() && self.after_queues == AfterQueues::Done {
            self.metrics.unrouted.inc();
            self.activity.count(|counts| counts.unrouted += 1);
            let topic = &message.topic;
            tracing::warn!(message.id = %message.id, "no task wants topic `{topic}`, which a task sent");
        }
        for task in tasks {
            self.metrics.entries.get_or_create(&ByTask { task: task.name.to_string() }).inc();
        }
    }
}
