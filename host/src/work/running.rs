//! The marks of the runs in progress, in a file of the state directory.
//!
//! The next daemon learns from the marks which runs the end of this one cut off. A mark must survive the end of the process.
//! It survives a loss of power only if the kernel has already written it, usually within half a minute. So it is written in
//! place and never synced, which takes a microsecond.
//!
//! Each line of the file has one mark, a JSON object, or only spaces.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use loopabull_model::{EntryId, TaskName};
use parking_lot::Mutex;

use crate::journal::InterruptedRun;

/// Length of a line, in bytes, with its end. An entry of ours with the longest name of a task fits.
const LINE: usize = 512;

/// The marks of the runs in progress.
#[derive(Debug)]
pub(crate) struct Running {
    file: File,
    lines: Mutex<Lines>,
}

#[derive(Debug)]
struct Lines {
    free: Vec<u64>,
    /// Number of lines in the file.
    count: u64,
}

/// The mark of a run. It stays in the file until [`Mark::end`]: a run that ends in another way, such as a panic, was cut
/// off.
#[derive(Debug)]
pub(crate) struct Mark {
    running: Arc<Running>,
    line: u64,
}

impl Running {
    /// Opens the file. Returns the marks that an ended process left in it; they stay until [`Running::forget`].
    pub(crate) fn open(path: &Path) -> io::Result<(Arc<Self>, Vec<InterruptedRun>)> {
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut text = vec![0; usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut text, 0)?;
        let found = text.chunks(LINE);
        let lines = Lines { free: Vec::new(), count: found.len() as u64 };
        // A line that cannot be read is the rest of a mark that was being written.
        let left = found.filter_map(|line| serde_json::from_slice(line).ok()).collect();
        Ok((Arc::new(Self { file, lines: Mutex::new(lines) }), left))
    }

    /// Deletes the marks that an ended process left.
    pub(crate) fn forget(&self) -> io::Result<()> {
        let mut lines = self.lines.lock();
        for line in 0..lines.count {
            self.write(line, &[])?;
        }
        lines.free = (0..lines.count).collect();
        Ok(())
    }

    /// Marks an entry as running.
    pub(crate) fn mark(
        self: &Arc<Self>,
        entry: &EntryId,
        task: &TaskName,
        attempt: u32,
    ) -> io::Result<Mark> {
        let marked = InterruptedRun { entry: entry.clone(), task: task.clone(), attempt };
        let text = serde_json::to_vec(&marked).expect("a mark is always valid JSON");
        let line = {
            let mut lines = self.lines.lock();
            lines.free.pop().unwrap_or_else(|| {
                lines.count += 1;
                lines.count - 1
            })
        };
        let written = self.write(line, &text);
        if written.is_err() {
            self.lines.lock().free.push(line);
        }
        written.map(|()| Mark { running: Arc::clone(self), line })
    }

    fn write(&self, line: u64, text: &[u8]) -> io::Result<()> {
        let mut bytes = [b' '; LINE];
        bytes[LINE - 1] = b'\n';
        let room = bytes[..LINE - 1].get_mut(..text.len());
        room.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(text);
        self.file.write_all_at(&bytes, line * LINE as u64)
    }
}

impl Mark {
    /// Deletes the mark: the run has ended.
    pub(crate) fn end(self) {
        if let Err(error) = self.running.write(self.line, &[]) {
            // If this process is killed now, the run counts as cut off.
            tracing::warn!("cannot delete the mark of a run: {error}");
        }
        self.running.lines.lock().free.push(self.line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(entry: &str) -> InterruptedRun {
        InterruptedRun { entry: EntryId::new(entry), task: "t".try_into().unwrap(), attempt: 2 }
    }

    fn mark(running: &Arc<Running>, entry: &str) -> Mark {
        running.mark(&EntryId::new(entry), &"t".try_into().unwrap(), 2).unwrap()
    }

    #[test]
    fn the_next_process_finds_the_marks_until_it_forgets_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("running.json");
        let (running, left) = Running::open(&path).unwrap();
        assert_eq!(left, []);
        let (one, two) = (mark(&running, "one"), mark(&running, "two"));
        one.end();
        let three = mark(&running, "three");
        let (next, left) = Running::open(&path).unwrap();
        assert_eq!(left, [marked("three"), marked("two")]);
        // Until then, a new mark takes no other's line. A dropped one stays.
        drop((two, three, mark(&next, "four")));
        assert_eq!(Running::open(&path).unwrap().1.len(), 3);
        let (last, _) = Running::open(&path).unwrap();
        last.forget().unwrap();
        assert_eq!(Running::open(&path).unwrap().1, []);
        let five = mark(&last, "five");
        assert_eq!(Running::open(&path).unwrap().1, [marked("five")]);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 3 * LINE as u64);
        five.end();
        assert_eq!(Running::open(&path).unwrap().1, []);
    }

    #[test]
    fn the_longest_name_fits_and_a_torn_line_is_no_mark() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("running.json");
        let (running, _) = Running::open(&path).unwrap();
        let task = TaskName::try_from("t".repeat(TaskName::MAX_BYTES)).unwrap();
        let _mark = running.mark(&EntryId::new("e".repeat(100)), &task, u32::MAX).unwrap();
        assert_eq!(Running::open(&path).unwrap().1[0].task, task);
        let error = running.mark(&EntryId::new("e".repeat(LINE)), &task, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        std::fs::write(&path, br#"{"entry":"e","ta"#).unwrap();
        assert_eq!(Running::open(&path).unwrap().1, []);
    }
}
