//! The ingest path turns a message into entries. All sources share it.
//!
//! The ingest path counts the message, looks up the tasks of its topic, and publishes an entry for
//! each task that has not received the message yet. It treats messages from all buses alike. A
//! source verifies a message before it calls the ingest path. The [`Publisher`] stores the entries.

use std::sync::Arc;

use loopabull_fedmsg::Rejection;
use loopabull_model::{Entry, EntryId, Message, Task, TaskName};

use crate::ingest::dedup::{Claim, Claimed, Custody, Dedup};
use crate::ingest::publisher::{Accepted, Publisher};
use crate::ingest::quarantine::{Stopping, Unusable};
use crate::observe::activity::Activity;
use crate::observe::arrivals::{Arrivals, Stored, Verdict};
use crate::observe::metrics::{ByRejection, Metrics};
use crate::tasks::catalog::CurrentCatalog;

/// Size of the entries from which no further ones are stored together, in bytes of their bodies.
const MAX_GROUP_BYTES: usize = 4 << 20;

/// The ingest path, which all sources share.
pub(super) struct IngestPath {
    catalog: Arc<CurrentCatalog>,
    dedup: Dedup,
    publisher: Publisher,
    arrivals: Arc<Arrivals>,
    activity: Arc<Activity>,
    metrics: Arc<Metrics>,
}

/// The tasks of a message: those for which it is accepted, and those that have it already.
#[derive(Default)]
struct Fates {
    /// Whether a task wants it.
    is_wanted: bool,
    tasks: Vec<Stored>,
    duplicate_for: Vec<TaskName>,
}

impl IngestPath {
    pub(super) fn new(
        catalog: Arc<CurrentCatalog>,
        dedup: Dedup,
        publisher: Publisher,
        arrivals: Arc<Arrivals>,
        activity: Arc<Activity>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { catalog, dedup, publisher, arrivals, activity, metrics }
    }

    /// Accepts messages that the source named `source` does not send again, in order. Returns when each entry of the
    /// messages is stored or counted as lost.
    pub(super) async fn accept(&self, source: &str, messages: &[Message]) {
        let (mut claims, mut entries, mut bytes) = (Vec::new(), Vec::new(), 0);
        for message in messages {
            if bytes > MAX_GROUP_BYTES {
                let (claims, entries) = (std::mem::take(&mut claims), std::mem::take(&mut entries));
                self.store(source, claims, entries).await;
                bytes = 0;
            }
            let tasks = self.find_tasks(message);
            let mut fates = Fates { is_wanted: !tasks.is_empty(), ..Fates::default() };
            for task in tasks {
                bytes += message.body.as_str().len();
                let claimed = match self.dedup.try_claim(&message.id, &task.name, Custody::Nobody) {
                    Some(claimed) => claimed,
                    None => {
                        // The other copy may be among our own claims.
                        let (claims, entries) =
                            (std::mem::take(&mut claims), std::mem::take(&mut entries));
                        self.store(source, claims, entries).await;
                        self.dedup.claim(&message.id, &task.name, Custody::Nobody).await
                    }
                };
                if let Some((claim, entry)) = self.entry(claimed, message, &task, &mut fates) {
                    claims.push(claim);
                    entries.push(entry);
                }
            }
            self.note(source, message, fates);
        }
        self.store(source, claims, entries).await;
    }

    /// Notes what became of a message.
    fn note(&self, source: &str, message: &Message, fates: Fates) {
        let Fates { is_wanted, tasks, duplicate_for } = fates;
        if !is_wanted {
            self.note_verdict(source, message, Verdict::Unrouted);
        } else if !tasks.is_empty() || !duplicate_for.is_empty() {
            self.note_verdict(source, message, Verdict::Accepted { tasks, duplicate_for });
        }
    }

    fn note_verdict(&self, source: &str, message: &Message, verdict: Verdict) {
        let (id, topic) = (Some(message.id.as_str()), Some(message.topic.as_str()));
        self.arrivals.note(source, id, topic, verdict, &self.metrics);
    }

    /// Stores claimed entries of messages that their source does not send again.
    async fn store(&self, source: &str, claims: Vec<Claim<'_>>, entries: Vec<Entry>) {
        if entries.is_empty() {
            return;
        }
        let accepted = self.publisher.publish(&entries).await;
        let lost = entries.iter().zip(&accepted).filter(|(_, accepted)| !is_stored(**accepted));
        for (entry, _) in lost {
            self.note_verdict(source, &entry.message, Verdict::Lost { task: entry.task.clone() });
        }
        // The claim of a lost entry is dropped without a record, so that another copy of the message can be stored
        // later.
        let stored = claims.into_iter().zip(accepted).filter(|(_, accepted)| is_stored(*accepted));
        self.record(stored.map(|(claim, _)| claim).collect()).await;
    }

    /// Accepts a message from the source named `source`. The source keeps the message until this
    /// function returns. By then, each entry of the message is in its queue, in the quarantine, or
    /// counted as lost. Waits while a queue is unavailable.
    ///
    /// # Errors
    ///
    /// If the daemon stops first.
    pub(super) async fn accept_kept(
        &self,
        source: &str,
        message: &Message,
    ) -> Result<(), Stopping> {
        let tasks = self.find_tasks(message);
        let mut fates = Fates { is_wanted: !tasks.is_empty(), ..Fates::default() };
        for task in tasks {
            let claimed = self.dedup.claim(&message.id, &task.name, Custody::Source).await;
            let Some((claim, entry)) = self.entry(claimed, message, &task, &mut fates) else {
                continue;
            };
            // The queue may be unavailable for a long time.
            let tasks = std::mem::take(&mut fates.tasks);
            let verdict = Verdict::Accepted { tasks, duplicate_for: Vec::new() };
            self.note_verdict(source, message, verdict);
            if is_stored(self.publisher.publish_kept(source, &entry).await?) {
                self.record(vec![claim]).await;
            } else {
                self.note_verdict(source, message, Verdict::Lost { task: task.name.clone() });
            }
        }
        self.note(source, message, fates);
        Ok(())
    }

    /// Counts a rejected envelope, and notes it with its id and its topic, as far as they could be read.
    pub(super) fn reject(
        &self,
        source: &str,
        id: Option<&str>,
        topic: Option<&str>,
        rejection: &Rejection,
    ) {
        self.note_rejected(source, id, topic, &rejection.to_string());
        let reason = rejection.reason();
        self.count_rejection(reason);
        // The debug level keeps a flood of rejected envelopes out of the log. The metric still
        // counts each of them.
        tracing::debug!(reason, "rejected an envelope: {rejection}");
    }

    /// Notes a message that was not accepted.
    pub(super) fn note_rejected(
        &self,
        source: &str,
        id: Option<&str>,
        topic: Option<&str>,
        reason: &str,
    ) {
        let verdict = Verdict::Rejected { reason: reason.to_owned() };
        self.arrivals.note(source, id, topic, verdict, &self.metrics);
    }

    /// Counts a rejected envelope under the metrics label `reason`.
    pub(super) fn count_rejection(&self, reason: &'static str) {
        self.metrics.rejections.get_or_create(&ByRejection { reason }).inc();
        self.activity.count(|counts| counts.rejected += 1);
    }

    /// Quarantines a delivery that is not a valid message, and counts it under the metrics label
    /// `reason`. Returns when the source may acknowledge the delivery.
    ///
    /// # Errors
    ///
    /// If the daemon stops first.
    pub(super) async fn reject_delivery(
        &self,
        source: &str,
        reason: &'static str,
        delivery: &Unusable<'_>,
    ) -> Result<(), Stopping> {
        self.count_rejection(reason);
        self.note_rejected(source, delivery.id, Some(delivery.topic), delivery.reason);
        self.publisher.quarantine_delivery(delivery).await
    }

    /// Publishes the entries in the spool until the daemon drains.
    pub(super) async fn forward_spool(self: Arc<Self>) {
        self.publisher.forward().await;
    }

    /// Counts a message and returns the tasks of its topic.
    fn find_tasks(&self, message: &Message) -> Vec<Arc<Task>> {
        self.metrics.messages.inc();
        self.activity.count(|counts| counts.accepted += 1);
        let tasks = self.catalog.get().routes.resolve(&message.topic);
        if tasks.is_empty() {
            self.metrics.unrouted.inc();
            self.activity.count(|counts| counts.unrouted += 1);
        }
        tasks
    }

    /// Makes the entry of a claimed message. If the task has already received the
    /// message, counts the duplicate and returns none.
    fn entry<'a>(
        &self,
        claimed: Claimed<'a>,
        message: &Message,
        task: &Task,
        fates: &mut Fates,
    ) -> Option<(Claim<'a>, Entry)> {
        match claimed {
            Claimed::New(claim) => {
                let id = EntryId::new(uuid::Uuid::now_v7().simple().to_string());
                fates.tasks.push(Stored { task: task.name.clone(), entry: id.clone() });
                Some((claim, Entry::new(id, task, message)))
            }
            Claimed::Duplicate => {
                self.metrics.duplicates.inc();
                fates.duplicate_for.push(task.name.clone());
                tracing::debug!(message.id = %message.id, "message `{}` is a duplicate", message.id);
                None
            }
        }
    }

    /// Records that tasks received messages.
    async fn record(&self, claims: Vec<Claim<'_>>) {
        let count = claims.len();
        if let Err(error) = self.dedup.record(claims).await {
            tracing::error!("{count} messages may be processed twice: {error}");
        }
    }
}

fn is_stored(accepted: Accepted) -> bool {
    match accepted {
        Accepted::Queued | Accepted::Spooled | Accepted::Quarantined => true,
        Accepted::Lost => false,
    }
}

#[cfg(test)]
mod tests {
    use loopabull_model::Routes;
    use tempfile::TempDir;

    use super::*;
    use crate::config::Deduplication;
    use crate::ingest::publisher::tests::{
        Counts, NONE, break_queue, counts, message, publisher_with, task,
    };
    use crate::tasks::catalog::Catalog;

    /// Returns an ingest path with one task, and a spool for `spool` bytes.
    async fn path(folder: &TempDir, spool: u64) -> IngestPath {
        let mut catalog = Catalog::default();
        catalog.routes = Arc::new(Routes::build([task()]));
        let file = folder.path().join("dedup.db");
        let dedup = Dedup::open(&file, &Deduplication::default()).await.unwrap();
        let catalog = Arc::new(CurrentCatalog::new(catalog));
        let metrics = Arc::default();
        let publisher = publisher_with(folder, spool, 10_000, &metrics).await;
        let arrivals = Arc::new(Arrivals::open(folder.path(), 100));
        IngestPath::new(catalog, dedup, publisher, arrivals, Arc::default(), metrics)
    }

    #[tokio::test]
    async fn a_duplicate_is_counted_and_not_published_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(&folder, 10_000).await;
        path.accept("bus", &[message("1")]).await;
        path.accept("bus", &[message("1")]).await;
        assert_eq!(path.accept_kept("bus", &message("1")).await, Ok(()));
        assert_eq!(counts(&path.metrics), Counts { published: 1, ..NONE });
        assert_eq!(path.metrics.duplicates.get(), 2);
    }

    #[tokio::test]
    async fn a_duplicate_among_messages_that_arrive_together_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(&folder, 10_000).await;
        path.accept("bus", &["1", "2", "1", "3", "3"].map(message)).await;
        assert_eq!(counts(&path.metrics), Counts { published: 3, ..NONE });
        assert_eq!(path.metrics.duplicates.get(), 2);
    }

    #[tokio::test]
    async fn a_spooled_message_is_a_duplicate_when_it_arrives_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(&folder, 10_000).await;
        break_queue(&folder);
        path.accept("bus", &[message("1")]).await;
        path.accept("bus", &[message("1")]).await;
        assert_eq!(counts(&path.metrics), Counts { spooled: 1, ..NONE });
        assert_eq!(path.metrics.duplicates.get(), 1);
    }

    #[tokio::test]
    async fn a_lost_message_is_not_a_duplicate_when_it_arrives_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(&folder, 1).await;
        break_queue(&folder);
        path.accept("bus", &[message("1")]).await;
        path.accept("bus", &[message("1")]).await;
        assert_eq!(counts(&path.metrics), Counts { lost: 2, ..NONE });
        assert_eq!(path.metrics.duplicates.get(), 0);
    }
}
