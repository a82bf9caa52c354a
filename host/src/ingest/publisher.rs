//! The publisher stores each entry durably, and counts the result once.
//!
//! The publisher stores an entry in one of three places. If possible, it publishes the entry to its
//! queue. If the queue is unavailable and the source does not send the message again, the entry
//! goes to the spool, and [`forward`](Publisher::forward) publishes it later. If the queue rejects
//! the entry permanently, the entry goes to the quarantine. The ingest path calls the publisher.

mod forward;
#[cfg(test)]
pub(super) mod tests;

use std::sync::Arc;
use std::time::Duration;

use loopabull_model::{Entry, chain};
use loopabull_queue::{Backoff, QueueError, Queues};
use tokio_util::sync::CancellationToken;

use crate::ingest::log_limit::LogLimit;
use crate::ingest::quarantine::{Quarantine, Quarantined, Stopping, Unusable};
use crate::ingest::spool::{Pushed, Spool};
use crate::observe::health::{Health, Part};
use crate::observe::metrics::{ByTask, Metrics};

/// Timeout for publishing an entry. After a timeout, the entry goes to the spool if the source does
/// not send the message again.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);

/// Stores entries in their queues, in the spool or in the quarantine.
pub(super) struct Publisher {
    queues: Arc<Queues>,
    spool: Spool,
    quarantine: Quarantine,
    health: Arc<Health>,
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
        metrics: Arc<Metrics>,
        drain: CancellationToken,
    ) -> Self {
        Self { queues, spool, quarantine, health, metrics, drain, losses: LogLimit::default() }
    }

    /// Publishes an entry of a message that its source does not send again. If the queue is
    /// unavailable, stores the entry in the spool.
    pub(super) async fn publish(&self, entry: &Entry) -> Accepted {
        let accepted = match self.try_publish(entry).await {
            Some(accepted) => accepted,
            None => self.spool(entry).await,
        };
        self.count(entry, accepted);
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
                let id = delivery.id.unwrap_or_default();
                self.log_loss(id, "the quarantine is full");
            }
        }
        Ok(())
    }

    /// Tries once to publish an entry. Returns none if the queue is unavailable, or if earlier
    /// entries for the queue are waiting in the spool.
    async fn try_publish(&self, entry: &Entry) -> Option<Accepted> {
        if !self.spool.is_empty(&entry.queue) {
            return None;
        }
        // After a timeout, the queue may have stored the entry. The entry is still published again,
        // with the same id, and the queue deduplicates it.
        match tokio::time::timeout(PUBLISH_TIMEOUT, self.queues.publish(entry)).await {
            Ok(Ok(())) => {
                self.resolve_problem();
                return Some(Accepted::Queued);
            }
            Ok(Err(error)) if error.is_permanent() => {
                return Some(self.quarantine_or_lose(entry, &error).await);
            }
            Ok(Err(error)) => self.report_problem(&chain(error)),
            Err(_) => {
                let seconds = PUBLISH_TIMEOUT.as_secs();
                let queue = &entry.queue;
                self.report_problem(&format!(
                    "queue `{queue}` did not store an entry within {seconds} s"
                ));
            }
        }
        None
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

    async fn spool(&self, entry: &Entry) -> Accepted {
        let pushed = self.spool.push(entry).await;
        self.metrics.set_spool(self.spool.depth());
        let problem = match pushed {
            Ok(Pushed::Stored) => return Accepted::Spooled,
            Ok(Pushed::Full) => "the spool is full".to_owned(),
            Err(error) => chain(error),
        };
        self.health.report(Part::Ingest, format_args!("messages are lost: {problem}"));
        self.lose(entry, &problem)
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
            Accepted::Lost => {
                self.metrics.lost.inc();
            }
        }
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
