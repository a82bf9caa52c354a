//! Deletes old runs, and gives the space of what was deleted back to the file system.
//!
//! The first look comes an hour after the start: until then, entries that an earlier daemon ran and did not settle are
//! redelivered, and the journal must recognise them.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use loopabull_model::chain;
use loopabull_store::StoreError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::journal::{Journal, Retention};

/// The time before the first look.
const FIRST: Duration = Duration::from_hours(1);
/// The interval at which the journal and the queue are looked through.
const INTERVAL: Duration = Duration::from_mins(10);
/// The number of steps after which the size of the queue is taken again.
const STEPS: u32 = 500;
/// The pause after each step, in which workers change the files.
const STEP_PAUSE: Duration = Duration::from_millis(20);
/// The difference between the clock and the time that has passed, above which somebody has set the clock.
const MAX_DIFFERENCE: Duration = Duration::from_mins(5);

/// The files that are kept small.
pub(super) struct Housekeeping {
    pub(super) journal: Arc<Journal>,
    pub(super) retention: Retention,
    pub(super) drain: CancellationToken,
}

impl Housekeeping {
    /// Keeps the files small until the daemon drains.
    pub(super) async fn run(self) {
        let mut wait = FIRST;
        loop {
            let before = (SystemTime::now(), Instant::now());
            // A step can be dropped at any time: it is carried out or not.
            tokio::select! {
                () = tokio::time::sleep(wait) => (),
                () = self.drain.cancelled() => return,
            }
            wait = INTERVAL;
            if was_set(before.0, before.1.elapsed()) {
                tracing::warn!("the clock was set, so no old runs are deleted for an hour");
                wait = FIRST;
                continue;
            }
            tokio::select! {
                () = self.keep() => (),
                () = self.drain.cancelled() => return,
            }
        }
    }

    async fn keep(&self) {
        match self.delete().await {
            Ok(0) => (),
            Ok(count) => tracing::info!("deleted {count} old runs from the journal"),
            Err(error) => tracing::warn!("cannot delete old runs: {}", chain(&error)),
        }
        if let Err(error) = self.journal.shrink().await {
            tracing::warn!("cannot shrink the journal: {}", chain(&error));
        }
    }

    async fn delete(&self) -> Result<usize, StoreError> {
        let mut deleted = 0;
        let mut queue = 0;
        for step in 0.. {
            if step % STEPS == 0 {
                queue = self.journal.bytes_of_queue(self.retention.max_size).await?;
            }
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let now_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
            match self.journal.delete_some(self.retention, queue, now_ms).await? {
                0 => break,
                count => deleted += count,
            }
            tokio::time::sleep(STEP_PAUSE).await;
        }
        Ok(deleted)
    }
}

/// Returns whether the clock does not show the time that has passed since `before`.
fn was_set(before: SystemTime, passed: Duration) -> bool {
    let shown = SystemTime::now().duration_since(before);
    shown.map_or(true, |shown| shown.abs_diff(passed) > MAX_DIFFERENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_is_noticed() {
        let hour = Duration::from_hours(1);
        let now = SystemTime::now();
        assert!(!was_set(now - hour, hour));
        assert!(was_set(now - hour, 2 * hour));
        assert!(was_set(now - 24 * hour, hour));
        assert!(was_set(now + hour, hour));
    }
}
