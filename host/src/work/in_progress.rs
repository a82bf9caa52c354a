//! The entries in progress: an entry that a broker delivers twice is processed once at a time.

use std::collections::HashSet;

use loopabull_model::EntryId;
use parking_lot::Mutex;

/// The entries that the workers of this daemon process right now.
#[derive(Debug, Default)]
pub(crate) struct EntriesInProgress(Mutex<HashSet<EntryId>>);

/// A guard of one entry in progress: dropping it ends the progress.
#[derive(Debug)]
pub(crate) struct EntryInProgress<'a> {
    entries: &'a EntriesInProgress,
    entry: EntryId,
}

impl EntriesInProgress {
    /// Marks an entry as in progress; returns `None` if it is already.
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
