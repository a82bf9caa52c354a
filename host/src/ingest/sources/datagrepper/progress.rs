//! The progress of catching up, in a file that survives a restart.
//!
//! Owns the time up to which nothing is missing, and the search that is under way. Times are in
//! seconds since 1970, as datagrepper has them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The numbers of messages of a page: the maximum of datagrepper, and smaller ones for a page that
/// cannot be read, so that one message delays no others. Each divides the one before, so that a smaller
/// page begins where the larger one began.
const ROWS: [u32; 4] = [100, 50, 10, 1];
/// How far before `complete_until` a search may begin if the file does not say when the first daemon
/// started, in seconds.
const MAX_OVERLAP: i64 = 3600;

/// The progress of catching up.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Progress {
    /// When the first daemon started: nothing before that was missed.
    begun: Option<i64>,
    /// Nothing up to this time is missing.
    complete_until: Option<i64>,
    /// The search that is not finished.
    pub under_way: Option<Search>,
}

/// A search of the archive, and the next page of it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Search {
    pub start: i64,
    pub end: i64,
    /// Counted from 1.
    pub page: u32,
    /// The number of messages of a page.
    #[serde(default = "max_rows")]
    pub rows: u32,
    /// The topics; none means all. They are kept because other topics would have other pages.
    #[serde(default)]
    pub topics: Vec<String>,
}

/// Why the progress cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgressError {
    #[error("cannot read `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot parse `{path}`")]
    Parse { path: PathBuf, source: serde_json::Error },
}

impl Progress {
    /// Reads the file. Without a file there is no progress yet.
    ///
    /// # Errors
    ///
    /// If it cannot be read or parsed. Starting over would leave a gap that nobody notices.
    pub(super) fn read(path: &Path) -> Result<Self, ProgressError> {
        let path = path.to_owned();
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|source| ProgressError::Parse { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(ProgressError::Read { path, source }),
        }
    }

    /// Replaces the file. The temporary file has a fixed name, so that crashes leave no more than one.
    ///
    /// # Errors
    ///
    /// If it cannot be written; the old file is still there.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let partial = path.with_extension("new");
        let mut file = File::create(&partial)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    }

    /// Notes that nothing up to a time is missing.
    pub(super) fn complete(&mut self, until: i64) {
        self.complete_until = self.complete_until.max(Some(until));
    }

    /// Returns the search of all that may be missing, from `overlap` seconds before the time that is
    /// complete. The first daemon has missed nothing.
    pub(super) fn next_search(
        &mut self,
        now: i64,
        overlap: i64,
        topics: Vec<String>,
    ) -> Option<Search> {
        let begun = *self.begun.get_or_insert_with(|| {
            // An older version of this program did not write `begun`.
            self.complete_until.map_or(now, |until| until - MAX_OVERLAP)
        });
        let until = *self.complete_until.get_or_insert(now);
        let start = until.saturating_sub(overlap).max(begun);
        (start < now).then(|| Search { start, end: now, page: 1, rows: max_rows(), topics })
    }
}

impl Search {
    /// Returns a search of a time in which nothing was published.
    pub(super) fn of_nothing() -> Self {
        Self { start: 0, end: 1, page: 1, rows: max_rows(), topics: Vec::new() }
    }

    /// Makes the pages smaller. The next page begins where it did. Returns whether it could: a page
    /// has at least one message.
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
        // Not from before the first daemon started.
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
