//! The marks of the runs in progress, in a file of the state directory.
//!
//! The next daemon learns from the marks which runs the end of this one cut off. A mark need not survive the end of the
//! machine: a loss of power is no crash that a task caused. So it is written in place and never synced, which takes a
//! microsecond.
//!
//! Each line of the file is one place for a mark: a JSON object, or only spaces.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use loopabull_model::{EntryId, TaskName};
use parking_lot::Mutex;

use crate::journal::Cut;

/// Length of a line, in bytes, with its end. An entry of ours with the longest name of a task fits.
const LINE: usize = 512;

/// The marks of the runs in progress.
#[derive(Debug)]
pub(crate) struct Running {
    file: File,
    places: Mutex<Places>,
}

#[derive(Debug)]
struct Places {
    free: Vec<u64>,
    /// Number of lines in the file.
    count: u64,
}

/// The mark of a run. When it is dropped, the run is not in progress any more.
#[derive(Debug)]
pub(crate) struct Mark {
    running: Arc<Running>,
    place: u64,
}

impl Running {
    /// Opens the file. Returns the marks that an ended process left in it; they stay until [`Running::forget`].
    pub(crate) fn open(path: &Path) -> io::Result<(Arc<Self>, Vec<Cut>)> {
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut text = vec![0; usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut text, 0)?;
        let lines = text.chunks(LINE);
        let places = Places { free: Vec::new(), count: lines.len() as u64 };
        // A line that cannot be read is the rest of a mark that was being written.
        let left = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
        Ok((Arc::new(Self { file, places: Mutex::new(places) }), left))
    }

    /// Deletes the marks that an ended process left.
    pub(crate) fn forget(&self) -> io::Result<()> {
        let mut places = self.places.lock();
        for place in 0..places.count {
            self.write(place, &[])?;
        }
        places.free = (0..places.count).collect();
        Ok(())
    }

    /// Marks an entry as running.
    pub(crate) fn mark(self: &Arc<Self>, entry: &EntryId, task: &TaskName) -> io::Result<Mark> {
        let marked = Cut { entry: entry.clone(), task: task.clone() };
        let text = serde_json::to_vec(&marked).expect("a mark is always valid JSON");
        let place = {
            let mut places = self.places.lock();
            places.free.pop().unwrap_or_else(|| {
                places.count += 1;
                places.count - 1
            })
        };
        let mark = Mark { running: Arc::clone(self), place };
        self.write(place, &text)?;
        Ok(mark)
    }

    fn write(&self, place: u64, text: &[u8]) -> io::Result<()> {
        let mut line = [b' '; LINE];
        line[LINE - 1] = b'\n';
        let room = line[..LINE - 1].get_mut(..text.len());
        room.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(text);
        self.file.write_all_at(&line, place * LINE as u64)
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        if let Err(error) = self.running.write(self.place, &[]) {
            // If this process is killed now, the run counts as cut off.
            tracing::warn!("cannot delete the mark of a run: {error}");
        }
        self.running.places.lock().free.push(self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(entry: &str) -> Cut {
        Cut { entry: EntryId::new(entry), task: "t".try_into().unwrap() }
    }

    fn mark(running: &Arc<Running>, entry: &str) -> Mark {
        running.mark(&EntryId::new(entry), &"t".try_into().unwrap()).unwrap()
    }

    #[test]
    fn the_next_process_finds_the_marks_until_it_forgets_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("running.json");
        let (running, left) = Running::open(&path).unwrap();
        assert_eq!(left, []);
        let (one, two) = (mark(&running, "one"), mark(&running, "two"));
        drop(one);
        let three = mark(&running, "three");
        let (next, left) = Running::open(&path).unwrap();
        assert_eq!(left, [marked("three"), marked("two")]);
        // Until then, a new mark takes no other's place.
        let four = mark(&next, "four");
        assert_eq!(Running::open(&path).unwrap().1.len(), 3);
        std::mem::forget((two, three, four));
        let (last, _) = Running::open(&path).unwrap();
        last.forget().unwrap();
        assert_eq!(Running::open(&path).unwrap().1, []);
        let five = mark(&last, "five");
        assert_eq!(Running::open(&path).unwrap().1, [marked("five")]);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 3 * LINE as u64);
        drop(five);
    }

    #[test]
    fn the_longest_name_fits_and_a_torn_line_is_no_mark() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("running.json");
        let (running, _) = Running::open(&path).unwrap();
        let task = TaskName::try_from("t".repeat(TaskName::MAX_BYTES)).unwrap();
        let _mark = running.mark(&EntryId::new("e".repeat(100)), &task).unwrap();
        assert_eq!(Running::open(&path).unwrap().1[0].task, task);
        let error = running.mark(&EntryId::new("e".repeat(LINE)), &task).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        std::fs::write(&path, br#"{"entry":"e","ta"#).unwrap();
        assert_eq!(Running::open(&path).unwrap().1, []);
    }
}
