//! The open file of the embedded queues, which their consumers and claims share.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use loopabull_model::QueueName;
use loopabull_store::{Store, StoreError};
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::Notify;

use super::claims::Claims;
use super::rows::{self, HasRuns};

/// The open file of the queues, with the claims on its entries. The queues, their consumers and their claims share it.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) store: Arc<Store>,
    pub(super) has_runs: Option<HasRuns>,
    pub(super) claims: Claims,
    /// Why entries of an earlier version cannot be taken over.
    pub(super) problem: Mutex<Option<String>>,
    /// Wakes idle workers when an entry may wait.
    pub(super) published: Notify,
    /// Number of releases of held entries, which are delivered before claimed ones that follow them.
    pub(super) releases: AtomicU64,
}

impl Shared {
    pub(super) fn new(store: Arc<Store>, has_runs: Option<HasRuns>) -> Self {
        let (claims, problem, published) = (Claims::default(), Mutex::default(), Notify::new());
        Self { store, has_runs, claims, problem, published, releases: AtomicU64::new(0) }
    }

    /// Claims the next entries of a queue, up to `count`: a due retry and another entry by turns, which a retry begins
    /// unless `is_new_first`. Returns their rows.
    pub(super) fn claim(
        &self,
        queue: &QueueName,
        is_new_first: bool,
        count: usize,
    ) -> Result<Vec<rows::Next>, StoreError> {
        self.claims.add(queue, |claimed| {
            let is_free = |row| !claimed.contains(&row);
            let next = |connection: &Connection| {
                rows::next(connection, queue.as_str(), is_new_first, count, is_free)
            };
            self.store.look_up(next)
        })
    }

    /// Returns whether an entry of a queue can be claimed.
    pub(super) fn is_waiting(&self, queue: &QueueName) -> Result<bool, StoreError> {
        let claimed = self.claims.of(queue);
        let next = |connection: &Connection| {
            rows::next(connection, queue.as_str(), true, 1, |row| !claimed.contains(&row))
        };
        Ok(!self.store.look_up(next)?.is_empty())
    }

    /// Ends claims whose entries were not delivered.
    pub(super) fn give_back(&self, queue: &QueueName, rows: impl IntoIterator<Item = i64>) {
        if self.claims.remove(queue, rows) > 0 {
            self.published.notify_waiters();
        }
    }
}
