//! The outbox takes the messages that tasks emit from the journal, and sends them to the queues.
//!
//! The journal stores an emitted message together with its run, so no message comes from a failed
//! run. The journal keeps the message until each task that subscribes to its topic has an entry in
//! its queue, so no message is lost. If the daemon crashes before the message is marked as sent,
//! the next daemon sends the message again with the same id. The queues deduplicate such a message;
//! consumers of a bus have to deduplicate it by its id.
//!
//! [`BusPublisher`](super::bus_publisher::BusPublisher) publishes the messages on the bus
//! separately, so that an unavailable bus does not delay workers. [`Journal::record`] fills the
//! outbox, and [`Queues::publish`] receives the entries. The entries for an embedded queue are in the transaction that
//! records the run, so only messages for the bus wait in the outbox.

use std::sync::Arc;

use loopabull_model::{Entry, EntryId, Message, Settlement, Task, chain};
use loopabull_queue::{Backoff, Delivery, Queues};
use tokio_util::sync::CancellationToken;

use crate::journal::{AfterQueues, Journal, QueueChanges, Record};
use crate::observe::activity::Activity;
use crate::observe::health::{Health, Part};
use crate::observe::metrics::{ByTask, Metrics};
use crate::tasks::catalog::CurrentCatalog;
use crate::work::error::WorkError;

/// Sends emitted messages to the queues.
pub(crate) struct Outbox {
    pub journal: Arc<Journal>,
    pub queues: Arc<Queues>,
    pub catalog: Arc<CurrentCatalog>,
    pub metrics: Arc<Metrics>,
    pub activity: Arc<Activity>,
    /// Destination of the messages after the queues.
    pub after_queues: AfterQueues,
}

impl Outbox {
    /// Sends the messages that the run of an entry left in the journal. The call can be repeated
    /// after an error.
    pub(crate) async fn send(&self, entry: &EntryId) -> Result<(), WorkError> {
        let messages = self.journal.outbox(entry).await?;
        for message in &messages {
            self.publish(message).await?;
        }
        if !messages.is_empty() {
            self.journal.set_queued(entry, self.after_queues).await?;
        }
        // A failed send is repeated as a whole, so messages are counted only after the send has
        // succeeded.
        messages.iter().for_each(|message| self.count(message));
        Ok(())
    }

    /// Has the transaction that records a run also send its messages and settle its delivery, if the queue is embedded.
    pub(crate) fn include(
        &self,
        record: &mut Record,
        delivery: &Delivery,
        settlement: &Settlement,
    ) {
        let Some(settlement) = delivery.file_settlement(settlement) else { return };
        let sends = record.sends.iter().filter(|_| record.run.outcome.is_success());
        let entries = sends.flat_map(|message| self.entries(message)).collect();
        record.queue = Some(QueueChanges { entries, after: self.after_queues, settlement });
    }

    /// Counts the messages of a run that were sent in this way.
    pub(crate) fn included(&self, record: &Record) {
        if record.run.outcome.is_success() && !record.sends.is_empty() {
            self.queues.wake();
            record.sends.iter().for_each(|message| self.count(message));
        }
    }

    /// Sends the messages that earlier daemons recorded but did not send, with retries. Then waits
    /// until the daemon drains, because a part that returns early stops the daemon.
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
        for entry in self.entries(message) {
            self.queues.publish(&entry).await?;
        }
        Ok(())
    }

    /// Returns an entry for each task that subscribes to an emitted message.
    fn entries(&self, message: &Message) -> Vec<Entry> {
        let tasks = self.catalog.get().routes.resolve(&message.topic);
        let entry =
            |task: &Arc<Task>| Entry::new(EntryId::derived(message, &task.name), task, message);
        tasks.iter().map(entry).collect()
    }

    /// Counts a message and its entries.
    fn count(&self, message: &Message) {
        let tasks = self.catalog.get().routes.resolve(&message.topic);
        self.metrics.emitted.inc();
        if tasks.is_empty() && self.after_queues == AfterQueues::Done {
            self.metrics.unrouted.inc();
            self.activity.count(|counts| counts.unrouted += 1);
            let topic = &message.topic;
            tracing::warn!(message.id = %message.id, "no task subscribes to topic `{topic}` of an emitted message");
        }
        for task in tasks {
            self.metrics.entries.get_or_create(&ByTask { task: task.name.to_string() }).inc();
        }
    }
}
