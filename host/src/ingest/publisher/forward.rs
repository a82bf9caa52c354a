//! Forwarding publishes the entries that wait in the spool. Entries for the same queue are
//! published in order.
//!
//! An unavailable queue does not delay other queues. A daemon without sources also forwards the
//! spool, because an earlier daemon may have left entries in it.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use loopabull_model::{Entry, chain};
use loopabull_queue::{Backoff, QueueError};
use loopabull_store::StoreError;

use crate::ingest::publisher::{Accepted, Publisher};

/// Interval at which the file is reread while an entry is counted but not written yet.
const WRITE_INTERVAL: Duration = Duration::from_millis(5);

/// The result of forwarding the first entries of a queue.
struct Batch {
    /// Number of entries that were removed from the spool.
    removed: u64,
    /// Error of the first entry that could not be published, if there is one.
    failure: Option<QueueError>,
}

impl Publisher {
    /// Publishes the entries in the spool until the daemon drains.
    pub(in crate::ingest) async fn forward(&self) {
        self.metrics.set_spool(self.spool.depth());
        let (mut running, mut busy) = (FuturesUnordered::new(), BTreeSet::new());
        loop {
            for queue in self.spool.queues() {
                if busy.insert(queue.clone()) {
                    running.push(self.forward_queue(queue));
                }
            }
            tokio::select! {
                () = self.spool.filled() => (),
                Some(queue) = running.next() => drop(busy.remove(&queue)),
                // Dropping a batch is safe: an entry that was published but not removed is
                // published again with the same id.
                () = self.drain.cancelled() => return,
            }
        }
    }

    /// Publishes the entries of one queue until the spool contains no more entries for it. Returns
    /// the name of the queue.
    async fn forward_queue(&self, queue: String) -> String {
        let mut backoff = Backoff::default();
        while self.spool.contains(&queue) {
            let failure = match self.forward_batch(&queue).await {
                // An entry is already counted but not in the file yet. So the file is reread after
                // a moment.
                Ok(Batch { removed: 0, failure: None }) => {
                    tokio::time::sleep(WRITE_INTERVAL).await;
                    continue;
                }
                Ok(Batch { removed, failure }) => {
                    if removed > 0 {
                        self.metrics.set_spool(self.spool.depth());
                        tracing::info!(
                            "removed {removed} entries of queue `{queue}` from the spool"
                        );
                        self.resolve_problem();
                        backoff.reset();
                    }
                    failure.map(chain)
                }
                Err(error) => Some(chain(error)),
            };
            if let Some(failure) = failure {
                self.report_problem(&failure);
                backoff.pause(&self.drain).await;
            }
        }
        queue
    }

    /// Publishes the first entries of a queue and removes them from the spool.
    async fn forward_batch(&self, queue: &str) -> Result<Batch, StoreError> {
        let lines = self.spool.first(queue).await?;
        let entries: Vec<_> = lines.iter().filter_map(|line| line.entry.as_ref()).collect();
        let mut published = self.queues.publish_all(&entries).await.into_iter();
        let (mut stored, mut results, mut failure) = (Vec::new(), Vec::new(), None);
        for line in &lines {
            let result = match &line.entry {
                None => {
                    self.log_loss(&line.id, "the entry in the spool cannot be parsed");
                    Ok(Accepted::Lost)
                }
                Some(entry) => match published.next() {
                    Some(published) => self.forwarded(entry, published).await,
                    None => break,
                },
            };
            match result {
                Ok(accepted) => {
                    stored.push(line);
                    results.push(accepted);
                }
                // The first error has the reason. An entry after it may be stored nevertheless.
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        let removed = self.spool.remove(queue, &stored).await?;
        // Entries are counted after their removal, because an entry that stays in the file is
        // published again.
        for (line, accepted) in stored.iter().zip(results) {
            match &line.entry {
                Some(entry) => self.count(entry, accepted),
                None => self.count_lost(),
            }
        }
        Ok(Batch { removed, failure })
    }

    /// Returns where an entry is stored. After an error, the entry stays in the spool and is published again.
    async fn forwarded(
        &self,
        entry: &Entry,
        published: Result<(), QueueError>,
    ) -> Result<Accepted, QueueError> {
        match published {
            Ok(()) => Ok(Accepted::Queued),
            Err(error) if error.is_permanent() => {
                // If the daemon stops first, the entry stays in the spool.
                self.quarantine(entry, &error).await.map_err(|_stopping| error)
            }
            Err(error) => Err(error),
        }
    }
}
