//! The progress of the datagrepper source, in a file that survives a restart.
//!
//! The file contains the time up to which no message is missing, and the search in progress. This
//! module also determines the period of the next search. It does not request pages. Times are in
//! seconds since 1970, as in datagrepper's API.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Page sizes, in messages. The first is the maximum of datagrepper. An unreadable page is
/// requested again in smaller pages, so that one unreadable message does not block the others. Each
/// size is a divisor of the size before it, so that a smaller page begins where the larger page
/// began.
const ROWS: [u32; 4] = [100, 50, 10, 1];
/// If the file does not contain the start of the first daemon, a search begins at most this many
/// seconds before `complete_until`.
const MAX_OVERLAP: i64 = 3600;

/// The progress of the datagrepper source.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Progress {
    /// Time at which the first daemon started. Earlier messages do not count as missed.
    begun: Option<i64>,
    /// Time up to which no message is missing.
    complete_until: Option<i64>,
    /// Search in progress.
    pub under_way: Option<Search>,
}

/// A search of the archive, and its next page.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Search {
    pub start: i64,
    pub end: i64,
    /// Number of the next page, counted from 1.
    pub page: u32,
    /// Number of messages on a page.
    #[serde(default = "max_rows")]
    pub rows: u32,
    /// Topics to search. An empty list means all topics. The topics are stored, because a search
    /// for other topics would have other pages.
    #[serde(default)]
    pub topics: Vec<String>,
}

/// The reason why the progress cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgressError {
    #[error("cannot read the progress of datagrepper from `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot parse the progress of datagrepper in `{path}`")]
    Parse { path: PathBuf, source: serde_json::Error },
}

impl Progress {
    /// Reads the progress file. If the file is missing, there is no progress yet.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or parsed. If the source started without the progress, messages
    /// could be missed unnoticed.
    pub(super) fn read(path: &Path) -> Result<Self, ProgressError> {
        let path = path.to_owned();
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|source| ProgressError::Parse { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(ProgressError::Read { path, source }),
        }
    }

    /// Replaces the file. The temporary file has a fixed name, so that crashes leave at most one
    /// temporary file.
    ///
    /// # Errors
    ///
    /// If the file cannot be written. The old file remains in this case.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let partial = path.with_extension("new");
        let mut file = File::create(&partial)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    }

    /// Records that no message is missing up to the time `until`.
    pub(super) fn complete(&mut self, until: i64) {
        self.complete_until = self.complete_until.max(Some(until));
    }

    /// Returns the search for all messages that may be missing. The search begins `overlap` seconds
    /// before the time up to which no message is missing, but not before the start of the first
    /// daemon. Returns none if there is nothing to search.
    pub(super) fn next_search(
        &mut self,
        now: i64,
        overlap: i64,
        topics: Vec<String>,
    ) -> Option<Search> {
        let begun = *self.begun.get_or_insert_with(|| {
            // An older version of this program did not write `begun`, so it is estimated.
            self.complete_until.map_or(now, |until| until - MAX_OVERLAP)
        });
        let until = *self.complete_until.get_or_insert(now);
        let start = until.saturating_sub(overlap).max(begun);
        (start < now).then(|| Search { start, end: now, page: 1, rows: max_rows(), topics })
    }
}

impl Search {
    /// Returns a search of a period in which no messages were published.
    pub(super) fn of_nothing() -> Self {
        Self { start: 0, end: 1, page: 1, rows: max_rows(), topics: Vec::new() }
    }

    /// Reduces the size of the pages. The next page begins at the same message. Returns false if a
    /// page already has only one message.
    pub(super) fn shrink(&mut self) -> bool {
        let Some(rows) = ROWS.into_iter().find(|rows| *rows < self.rows) else { return false };
        self.page = (self.page - 1) * (self.rows / rows) + 1;
        self.rows = rows;
        true
    }
}

fn max_rows() -> u32 {
    ROWS[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(start: i64, end: i64) -> Search {
        Search { start, end, ..Search::of_nothing() }
    }

    #[test]
    fn progress_survives_a_restart_and_a_broken_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("datagrepper.json");
        assert_eq!(Progress::read(&path).unwrap(), Progress::default());
        let search = Search { page: 3, rows: 50, topics: vec!["a".into()], ..search(1, 2) };
        let progress =
            Progress { begun: Some(0), complete_until: Some(1), under_way: Some(search) };
        progress.write(&path).unwrap();
        assert_eq!(Progress::read(&path).unwrap(), progress);
        fs::write(&path, "{").unwrap();
        assert!(matches!(Progress::read(&path), Err(ProgressError::Parse { .. })));
    }

    #[test]
    fn the_first_daemon_has_missed_nothing_and_later_ones_search_from_the_overlap() {
        let mut progress = Progress::default();
        assert_eq!(progress.next_search(1000, 120, Vec::new()), None);
        // The search does not begin before the start of the first daemon.
        assert_eq!(progress.next_search(1060, 120, Vec::new()), Some(search(1000, 1060)));
        progress.complete(2000);
        progress.complete(1500);
        assert_eq!(progress.next_search(2010, 120, Vec::new()), Some(search(1880, 2010)));
    }

    #[test]
    fn a_file_without_begun_is_searched_at_most_an_hour_back() {
        let mut progress = Progress { complete_until: Some(10_000), ..Progress::default() };
        assert_eq!(progress.next_search(10_001, 9999, Vec::new()), Some(search(6400, 10_001)));
    }

    #[test]
    fn a_smaller_page_begins_where_the_larger_one_began() {
        let mut search = Search { page: 3, ..search(1, 2) };
        for (rows, page) in [(50, 5), (10, 21), (1, 201)] {
            assert!(search.shrink());
            assert_eq!((search.rows, search.page), (rows, page));
        }
        assert!(!search.shrink());
    }
}
