//! The publisher stores each entry durably, and counts the result once.
//!
//! The publisher stores an entry in one of three places. If possible, it publishes the entry to its
//! queue. If the queue is unavailable and the source does not send the message again, the entry
//! goes to the spool, and [`forward`](Publisher::forward) publishes it later. If the queue rejects
//! the entry permanently, the entry goes to the quarantine. The ingest path calls the publisher.

mod forward;
#[cfg(test)]
pub(super) mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use loopabull_model::{Entry, QueueName, chain};
use loopabull_queue::{Backoff, QueueError, Queues};
use tokio_util::sync::CancellationToken;

use crate::ingest::log_limit::LogLimit;
use crate::ingest::quarantine::{Quarantine, Quarantined, Stopping, Unusable};
use crate::ingest::spool::Spool;
use crate::observe::activity::Activity;
use crate::observe::health::{Health, Part};
use crate::observe::metrics::{ByTask, Metrics};

/// Timeout for publishing a group of entries to their queue. After a timeout, the entries go to the spool if their source
/// does not send the messages again.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum number of entries in such a group.
const GROUP: usize = 128;

/// Stores entries in their queues, in the spool or in the quarantine.
pub(super) struct Publisher {
    queues: Arc<Queues>,
    spool: Spool,
    quarantine: Quarantine,
    health: Arc<Health>,
    activity: Arc<Activity>,
    metrics: Arc<Metrics>,
    drain: CancellationToken,
    losses: LogLimit,
}

/// The place where an entry was stored, if it was stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub(super) enum Accepted {
    /// The entry is in its queue.
    Queued,
    /// The entry is in the spool, on disk. It is published once its queue is available.
    Spooled,
    /// The entry is in the quarantine, on disk, because its queue rejects it permanently.
    Quarantined,
    /// The entry is not stored. It is counted as lost, and the loss is logged.
    Lost,
}

impl Publisher {
    pub(super) fn new(
        queues: Arc<Queues>,
        spool: Spool,
        quarantine: Quarantine,
        health: Arc<Health>,
        activity: Arc<Activity>,
        metrics: Arc<Metrics>,
        drain: CancellationToken,
    ) -> Self {
        let losses = LogLimit::default();
        Self { queues, spool, quarantine, health, activity, metrics, drain, losses }
    }

    /// Publishes entries of messages that their source does not send again, those of one queue in order. If a
    /// queue is unavailable, stores its entries in the spool. Returns where each entry was stored.
    pub(super) async fn publish(&self, entries: &[Entry]) -> Vec<Accepted> {
        let mut accepted = vec![Accepted::Lost; entries.len()];
        // An entry must not overtake one that waits in the spool. All entries of a queue take the same way.
        let spooled = self.spool.queues();
        let (waiting, publishable): (Vec<usize>, Vec<usize>) =
            (0..entries.len()).partition(|place| {
                spooled.iter().any(|queue| *queue == entries[*place].queue.as_str())
            });
        let mut spooled = waiting;
        if !publishable.is_empty() {
            let published: Vec<&Entry> = publishable.iter().map(|place| &entries[*place]).collect();
            let published = self.try_publish(&published).await;
            for (place, published) in publishable.into_iter().zip(published) {
                match published {
                    Some(stored) => accepted[place] = stored,
                    None => spooled.push(place),
                }
            }
        }
        spooled.sort_unstable();
        let waiting: Vec<&Entry> = spooled.iter().map(|place| &entries[*place]).collect();
        for (place, stored) in spooled.iter().zip(self.spool(&waiting).await) {
            accepted[*place] = stored;
        }
        for (entry, accepted) in entries.iter().zip(&accepted) {
            self.count(entry, *accepted);
        }
        accepted
    }

    /// Publishes an entry. The source named `source` keeps the message until this function returns,
    /// so the publisher retries until the queue accepts the entry or rejects it permanently.
    ///
    /// # Errors
    ///
    /// If the daemon stops first.
    pub(super) async fn publish_kept(
        &self,
        source: &str,
        entry: &Entry,
    ) -> Result<Accepted, Stopping> {
        let accepted = self.publish_until_stored(source, entry).await?;
        self.count(entry, accepted);
        Ok(accepted)
    }

    /// Quarantines a delivery that is not a valid message. Returns when the delivery is stored or
    /// counted as lost.
    ///
    /// # Errors
    ///
    /// If the daemon stops first.
    pub(super) async fn quarantine_delivery(
        &self,
        delivery: &Unusable<'_>,
    ) -> Result<(), Stopping> {
        match self.quarantine.store(delivery, &self.health, &self.drain).await? {
            Quarantined::Stored => (),
            Quarantined::Full => {
                self.metrics.lost_envelopes.inc();
                self.activity.lose(1);
                let id = delivery.id.unwrap_or_default();
                self.log_loss(id, "the quarantine is full");
            }
        }
        Ok(())
    }

    /// Tries once to publish entries. Returns for each where it was stored, or none if its queue is unavailable. An
    /// unavailable queue delays no other.
    async fn try_publish(&self, entries: &[&Entry]) -> Vec<Option<Accepted>> {
        let mut by_queue: BTreeMap<&QueueName, Vec<usize>> = BTreeMap::new();
        for (place, entry) in entries.iter().enumerate() {
            by_queue.entry(&entry.queue).or_default().push(place);
        }
        let published = by_queue.into_iter().map(async |(queue, places)| {
            let entries: Vec<&Entry> = places.iter().map(|place| entries[*place]).collect();
            places.into_iter().zip(self.try_publish_to(queue, &entries).await)
        });
        let (mut accepted, mut problem) = (vec![None; entries.len()], None);
        for (place, published) in join_all(published).await.into_iter().flatten() {
            accepted[place] = match published {
                Ok(stored) => Some(stored),
                Err(error) => {
                    problem.get_or_insert(error);
                    None
                }
            };
        }
        match problem {
            Some(problem) => self.report_problem(&problem),
            None => self.resolve_problem(),
        }
        accepted
    }

    /// Tries once to publish entries of one queue. An error is the problem of the queue.
    async fn try_publish_to(
        &self,
        queue: &QueueName,
        entries: &[&Entry],
    ) -> Vec<Result<Accepted, String>> {
        let mut accepted = Vec::with_capacity(entries.len());
        for group in entries.chunks(GROUP) {
            let publish = self.queues.publish_all(group);
            let Ok(published) = tokio::time::timeout(PUBLISH_TIMEOUT, publish).await else {
                // The queue may have stored an entry of this group. It is still published again,
                // with the same id, and the host that runs one recognises the other.
                let seconds = PUBLISH_TIMEOUT.as_secs();
                let problem =
                    format!("queue `{queue}` did not store its entries within {seconds} s");
                accepted.resize(entries.len(), Err(problem));
                return accepted;
            };
            let mut first = None;
            for (entry, published) in group.iter().zip(published) {
                accepted.push(match published {
                    Ok(()) => Ok(Accepted::Queued),
                    Err(error) if error.is_permanent() => {
                        Ok(self.quarantine_or_lose(entry, &error).await)
                    }
                    Err(error) => Err(first.get_or_insert_with(|| chain(error)).clone()),
                });
            }
            if let Some(problem) = first {
                // A later group must not overtake this one.
                accepted.resize(entries.len(), Err(problem));
                return accepted;
            }
        }
        accepted
    }

    async fn publish_until_stored(
        &self,
        source: &str,
        entry: &Entry,
    ) -> Result<Accepted, Stopping> {
        let mut backoff = Backoff::default();
        let part = Part::Source(source.to_owned());
        while !self.drain.is_cancelled() {
            let publish = self.queues.publish(entry);
            tokio::pin!(publish);
            let published = tokio::select! {
                published = &mut publish => Some(published),
                // When the daemon drains, a publish in progress may still finish, so that the
                // source can acknowledge the message.
                () = self.drain.cancelled() => {
                    tokio::time::timeout(PUBLISH_TIMEOUT, publish).await.ok()
                }
            };
            match published {
                Some(Ok(())) => {
                    self.health.resolve(&part);
                    return Ok(Accepted::Queued);
                }
                // The queue will never accept the entry. Without the quarantine, the source would
                // redeliver the message forever.
                Some(Err(error)) if error.is_permanent() => {
                    return self.quarantine(entry, &error).await;
                }
                Some(Err(error)) => {
                    let error = chain(error);
                    let problem = format!("messages wait at the source: {error}");
                    self.health.report(part.clone(), problem);
                    backoff.pause(&self.drain).await;
                }
                None => break,
            }
        }
        Err(Stopping)
    }

    async fn spool(&self, entries: &[&Entry]) -> Vec<Accepted> {
        if entries.is_empty() {
            return Vec::new();
        }
        let full = || "the spool is full".to_owned();
        let (stored, problem) = match self.spool.push(entries).await {
            Ok(stored) => (stored, full()),
            // Some of them may fit on a disk that is nearly full.
            Err(error) => {
                let mut stored = Vec::with_capacity(entries.len());
                for entry in entries {
                    stored.push(self.spool.push(&[entry]).await.is_ok_and(|stored| stored[0]));
                }
                (stored, chain(error))
            }
        };
        self.metrics.set_spool(self.spool.depth());
        let accepted = entries.iter().zip(stored).map(|(entry, is_stored)| match is_stored {
            true => Accepted::Spooled,
            false => {
                self.health.report(Part::Ingest, format_args!("messages are lost: {problem}"));
                self.lose(entry, &problem)
            }
        });
        accepted.collect()
    }

    /// Quarantines an entry that its queue rejects permanently.
    ///
    /// # Errors
    ///
    /// If the daemon stops first.
    async fn quarantine(&self, entry: &Entry, why: &QueueError) -> Result<Accepted, Stopping> {
        let message = &entry.message;
        let unusable = Unusable {
            reason: &why.to_string(),
            topic: message.topic.as_str(),
            id: Some(message.id.as_str()),
            headers: &message.headers,
            content_encoding: None,
            body: message.body.as_str().as_bytes(),
        };
        match self.quarantine.store(&unusable, &self.health, &self.drain).await? {
            Quarantined::Stored => Ok(Accepted::Quarantined),
            Quarantined::Full => Ok(self.lose(entry, "the quarantine is full")),
        }
    }

    /// Quarantines an entry of a message that its source does not send again. If the daemon stops
    /// first, the entry is lost.
    async fn quarantine_or_lose(&self, entry: &Entry, why: &QueueError) -> Accepted {
        match self.quarantine(entry, why).await {
            Ok(accepted) => accepted,
            Err(Stopping) => self.lose(entry, &Stopping.to_string()),
        }
    }

    fn lose(&self, entry: &Entry, why: &str) -> Accepted {
        self.log_loss(entry.message.id.as_str(), why);
        Accepted::Lost
    }

    fn log_loss(&self, id: &str, why: &str) {
        if let Some(count) = self.losses.count() {
            tracing::error!(message.id = %id, "lost {count} messages, the last one is `{id}`: {why}");
        }
    }

    fn count(&self, entry: &Entry, accepted: Accepted) {
        match accepted {
            Accepted::Queued => {
                let task = entry.task.to_string();
                self.metrics.entries.get_or_create(&ByTask { task }).inc();
            }
            Accepted::Spooled => {
                self.metrics.spooled_entries.inc();
            }
            Accepted::Quarantined => {
                self.metrics.quarantined.inc();
            }
            Accepted::Lost => self.count_lost(),
        }
    }

    fn count_lost(&self) {
        self.metrics.lost.inc();
        self.activity.lose(1);
    }

    fn report_problem(&self, error: &str) {
        let problem = format!("messages wait in the spool: {error}");
        self.health.report(Part::Ingest, &problem);
        tracing::warn!("{problem}");
    }

    /// Resolves the problem of ingest, unless entries are still waiting in the spool.
    fn resolve_problem(&self) {
        if self.spool.depth() == (0, 0) {
            self.health.resolve(&Part::Ingest);
        }
    }
}
