//! A worker's consumer of an embedded queue.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use loopabull_model::{QueueName, Settlement};
use rusqlite::Connection;
use tokio_util::sync::CancellationToken;

use super::claim::Claim;
use super::rows;
use super::shared::Shared;
use crate::delivered::DeliveredEntry;
use crate::error::QueueError;

/// Time within which a worker that is fast has delivered a group of claimed entries. A worker gives claimed entries back
/// while a run takes long.
const FAST: Duration = Duration::from_millis(500);

/// A worker's consumer of an embedded queue.
///
/// It claims several entries at once, so that fast tasks do not search for each. The number doubles while the worker needs
/// the next group soon ([`FAST`]), up to the prefetch.
#[derive(Debug)]
pub struct Consumer {
    queue: QueueName,
    prefetch: usize,
    shared: Arc<Shared>,
    /// Entries that are claimed and not delivered yet.
    claimed: VecDeque<Claimed>,
    /// Number of entries to claim next, and the time of the last claim.
    group: usize,
    claimed_at: Instant,
    /// Whether claimed entries were given back since.
    is_slow: bool,
    /// The number of releases at the last claim.
    seen_releases: u64,
    /// Whether the last entry was a retry. Then the next one is a new entry, if there is one: retries that fail
    /// again and again take at most every second turn.
    was_retry: bool,
}

/// An entry that was claimed.
#[derive(Debug)]
struct Claimed {
    row: i64,
    delivered: DeliveredEntry,
    /// Whether the entry had waited for this attempt.
    is_retry: bool,
}

impl Consumer {
    pub(super) fn new(queue: QueueName, prefetch: usize, shared: Arc<Shared>) -> Self {
        Self {
            queue,
            prefetch,
            shared,
            claimed: VecDeque::new(),
            group: 1,
            claimed_at: Instant::now(),
            is_slow: false,
            seen_releases: 0,
            was_retry: false,
        }
    }

    pub(crate) async fn receive(
        &mut self,
        stop: &CancellationToken,
    ) -> Result<Option<(DeliveredEntry, Claim)>, QueueError> {
        while !stop.is_cancelled() {
            if self.shared.releases.load(Ordering::Relaxed) != self.seen_releases {
                self.give_back();
            }
            if self.claimed.is_empty() {
                self.claim().await?;
            }
            if let Some(claimed) = self.claimed.pop_front() {
                self.was_retry = claimed.is_retry;
                let claim = Claim::new(claimed.row, &self.shared);
                return Ok(Some((claimed.delivered, claim)));
            }
            tokio::select! {
                () = self.shared.published.notified() => (),
                () = stop.cancelled() => (),
            }
        }
        Ok(None)
    }

    /// Returns the entries that were claimed and not delivered to their positions in the queue. The next claim takes one
    /// entry.
    pub(crate) fn give_back(&mut self) {
        self.is_slow = true;
        self.shared.give_back(&self.queue, self.claimed.drain(..).map(|claimed| claimed.row));
    }

    async fn claim(&mut self) -> Result<(), QueueError> {
        let is_fast = !std::mem::take(&mut self.is_slow) && self.claimed_at.elapsed() < FAST;
        self.group = if is_fast { (self.group * 2).min(self.prefetch) } else { 1 };
        self.seen_releases = self.shared.releases.load(Ordering::Relaxed);
        while self.claimed.is_empty() {
            let found = self.shared.claim(&self.queue, self.was_retry, self.group)?;
            if found.is_empty() {
                break;
            }
            if found.len() == self.group {
                // More entries may wait for other workers.
                self.shared.published.notify_one();
            }
            self.load(found).await?;
        }
        self.claimed_at = Instant::now();
        // A worker that found fewer is faster than the entries come.
        self.group = self.claimed.len().max(1);
        Ok(())
    }

    /// Reads claimed entries. One that cannot be read becomes a dead letter.
    async fn load(&mut self, found: Vec<rows::Next>) -> Result<(), QueueError> {
        let has_runs = self.shared.has_runs;
        let load = |connection: &Connection| rows::load(connection, &found, has_runs);
        let loaded = match self.shared.store.look_up(load) {
            Ok(loaded) => loaded,
            Err(error) => {
                self.shared.give_back(&self.queue, found.iter().map(|next| next.row));
                return Err(error.into());
            }
        };
        self.shared.give_back(&self.queue, found[loaded.len()..].iter().map(|next| next.row));
        let mut result = Ok(());
        for (rows::Next { row, is_retry }, loaded) in found.into_iter().zip(loaded) {
            match loaded {
                rows::Loaded::Entry(delivered) => {
                    self.claimed.push_back(Claimed { row, delivered: *delivered, is_retry });
                }
                rows::Loaded::Unreadable { attempts, reason } => {
                    let settlement = Settlement::dead_letter(reason);
                    let settle = move |connection: &Connection| {
                        rows::settle(connection, row, attempts, &settlement)
                    };
                    result = result.and(self.shared.store.change(settle).await.map(drop));
                    self.shared.claims.remove(&self.queue, [row]);
                }
                rows::Loaded::Gone => {
                    self.shared.claims.remove(&self.queue, [row]);
                }
            }
        }
        Ok(result?)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.give_back();
    }
}
