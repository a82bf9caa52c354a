//! Deletes old runs, and gives the space of what was deleted back to the file system.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use loopabull_model::chain;
use loopabull_queue::Queues;
use loopabull_store::StoreError;
use tokio_util::sync::CancellationToken;

use crate::journal::{Journal, Retention};

/// The interval at which the journal and the queue are looked through.
const INTERVAL: Duration = Duration::from_mins(10);
/// The pause after each step, in which workers change the files.
const STEP_PAUSE: Duration = Duration::from_millis(20);

/// The files that are kept small.
pub(super) struct Housekeeping {
    pub(super) journal: Arc<Journal>,
    pub(super) queues: Arc<Queues>,
    pub(super) retention: Retention,
    pub(super) drain: CancellationToken,
}

impl Housekeeping {
    /// Keeps the files small until the daemon drains.
    pub(super) async fn run(self) {
        loop {
            // A step can be dropped at any time: it is carried out or not.
            tokio::select! {
                done = self.keep() => {
                    if let Err(error) = done {
                        tracing::warn!("cannot delete old runs: {}", chain(&error));
                    }
                }
                () = self.drain.cancelled() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => (),
                () = self.drain.cancelled() => return,
            }
        }
    }

    async fn keep(&self) -> Result<(), StoreError> {
        let mut deleted = 0;
        loop {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let now_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
            match self.journal.delete_some(self.retention, now_ms).await? {
                0 => break,
                count => deleted += count,
            }
            tokio::time::sleep(STEP_PAUSE).await;
        }
        if deleted > 0 {
            tracing::info!("deleted {deleted} old runs from the journal");
        }
        self.journal.shrink().await?;
        self.queues.shrink().await
    }
}
