//! The entries in progress. If the broker redelivers an entry that this daemon is still processing,
//! the second delivery is not processed at the same time.

use std::collections::HashSet;

use loopabull_model::EntryId;
use parking_lot::Mutex;

/// The entries that the workers of this daemon are processing.
#[derive(Debug, Default)]
pub(crate) struct EntriesInProgress(Mutex<HashSet<EntryId>>);

/// A guard for an entry in progress. When the guard is dropped, the entry is not in progress any
/// more.
#[derive(Debug)]
pub(crate) struct EntryInProgress<'a> {
    entries: &'a EntriesInProgress,
    entry: EntryId,
}

impl EntriesInProgress {
    /// Marks an entry as in progress. Returns `None` if the entry is already in progress.
    pub(crate) fn start(&self, entry: &EntryId) -> Option<EntryInProgress<'_>> {
        let is_new = self.0.lock().insert(entry.clone());
        is_new.then(|| EntryInProgress { entries: self, entry: entry.clone() })
    }
}

impl Drop for EntryInProgress<'_> {
    fn drop(&mut self) {
        self.entries.0.lock().remove(&self.entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_in_progress_once_at_a_time() {
        let entries = EntriesInProgress::default();
        let entry = EntryId::new("e");
        let in_progress = entries.start(&entry);
        assert!(in_progress.is_some());
        assert!(entries.start(&entry).is_none());
        drop(in_progress);
        assert!(entries.start(&entry).is_some());
    }
}
