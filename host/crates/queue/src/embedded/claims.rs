//! The claims of the consumers: the rows that are delivered, or claimed in advance, and not settled.

use std::collections::{BTreeSet, HashMap};

use loopabull_model::QueueName;
use parking_lot::Mutex;

use super::rows::Next;

/// The claims of the consumers of a file.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<HashMap<QueueName, BTreeSet<i64>>>);

impl Claims {
    /// Claims the rows that `find` returns. It gets the claimed rows of the queue. No two callers find the same row.
    ///
    /// A settlement is committed before its claim is removed. So the file is right about each row that is not claimed.
    pub(super) fn add<E>(
        &self,
        queue: &QueueName,
        find: impl FnOnce(&BTreeSet<i64>) -> Result<Vec<Next>, E>,
    ) -> Result<Vec<Next>, E> {
        let mut claims = self.0.lock();
        let claimed = claims.entry(queue.clone()).or_default();
        let found = find(claimed)?;
        claimed.extend(found.iter().map(|next| next.row));
        Ok(found)
    }

    /// Removes claims of a queue. Returns how many there were.
    pub(super) fn remove(&self, queue: &QueueName, rows: impl IntoIterator<Item = i64>) -> usize {
        let mut claims = self.0.lock();
        let Some(claimed) = claims.get_mut(queue) else { return 0 };
        rows.into_iter().filter(|row| claimed.remove(row)).count()
    }

    /// Returns whether a row is claimed.
    pub(super) fn contains(&self, queue: &QueueName, row: i64) -> bool {
        self.0.lock().get(queue).is_some_and(|claimed| claimed.contains(&row))
    }

    /// Returns the claimed rows of a queue.
    pub(super) fn of(&self, queue: &QueueName) -> BTreeSet<i64> {
        self.0.lock().get(queue).cloned().unwrap_or_default()
    }
}
