//! Begins attempts, and decides whether an entry may run if daemons died while it ran: it may be the cause.
//!
//! The journal keeps the counts of crashes. They are read once, when the daemon starts and adds the crash of the previous
//! one, from the marks that this one left ([`Running`]). Later a daemon only deletes counts.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use loopabull_model::{EntryId, Outcome, RetryPolicy, Run, TaskName, chain};
use loopabull_store::StoreError;
use parking_lot::Mutex;

use crate::journal::{Crashed, Ended, InterruptedRun, Journal};
use crate::work::running::{Mark, Running};

/// Number of daemons that must die during runs of an entry before the entry is a suspect. The task
/// of a suspect may be the cause of these deaths. A suspect is delayed, and runs only while no
/// other suspect runs. So if the daemon dies again, at most one suspect can be the cause.
const SUSPECT_CRASHES: u32 = 2;

/// Begins attempts.
#[derive(Debug)]
pub(crate) struct Starts {
    journal: Arc<Journal>,
    path: PathBuf,
    running: Arc<Running>,
    /// Marks that the previous daemon left, until its crash is counted.
    left: Mutex<Vec<InterruptedRun>>,
    suspects: Arc<Mutex<Suspects>>,
}

#[derive(Debug, Default)]
struct Suspects {
    entries: HashMap<EntryId, CrashedEntry>,
    /// The tasks with which daemons died.
    tasks: HashSet<TaskName>,
    /// Whether a suspect is running.
    is_running: bool,
}

#[derive(Clone, Copy, Debug)]
struct CrashedEntry {
    crashes: u32,
    /// Whether the entry was delayed since this daemon started.
    has_waited: bool,
}

/// Whether an attempt that is about to begin may run.
#[derive(Debug)]
pub(crate) enum Begun {
    /// The attempt may run. `crashes` daemons died while they ran the entry.
    Run { crashes: u32, in_progress: InProgress },
    /// The entry must be delayed. It was running when several daemons died, and must not run at the
    /// same time as another such entry.
    Wait,
    /// The entry already has a successful run, but the delivery was not settled.
    Succeeded,
    /// This attempt or a later attempt already has a recorded run, but the delivery was not
    /// settled.
    Ended { outcome: Outcome, attempt: u32, output: String },
}

/// An attempt in progress, until [`InProgress::end`]. If the daemon dies before, or this is dropped, that is a crash of the
/// entry and its task.
#[derive(Debug)]
pub(crate) struct InProgress {
    mark: Mark,
    _suspect: Option<RunningSuspect>,
}

/// A suspect that is running. Others wait until it is dropped.
#[derive(Debug)]
struct RunningSuspect(Arc<Mutex<Suspects>>);

/// The reason why an attempt could not begin, or why a crash could not be counted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Journal(#[from] StoreError),
    #[error("cannot use the file `{}` of the runs in progress", path.display())]
    Marks { path: PathBuf, source: io::Error },
}

impl Starts {
    /// Opens the marks in a state directory. Creates the file if it is missing.
    pub(crate) fn open(journal: Arc<Journal>, state: &Path) -> Result<Self, StartError> {
        let path = state.join("running.json");
        let (running, left) = Running::open(&path)
            .map_err(|source| StartError::Marks { path: path.clone(), source })?;
        let (left, suspects) = (Mutex::new(left), Arc::default());
        Ok(Self { journal, path, running, left, suspects })
    }

    /// Returns the tasks that were running when the last daemon died, and adds the crash to their
    /// counts and to those of the entries. Another call for the same crash returns no tasks.
    pub(crate) async fn take_crashed(&self) -> Result<Vec<Crashed>, StartError> {
        let left = self.left.lock().clone();
        let (crashed, counts) = self.journal.count_crash(left).await?;
        self.left.lock().clear();
        {
            let entry = |crashes| CrashedEntry { crashes, has_waited: false };
            let entries = counts.entries.into_iter().map(|(id, crashes)| (id, entry(crashes)));
            let mut suspects = self.suspects.lock();
            (suspects.entries, suspects.tasks) = (entries.collect(), counts.tasks);
        }
        if let Err(source) = self.running.forget() {
            // The next daemon counts these marks again.
            tracing::error!("{}", chain(self.error(source)));
        }
        Ok(crashed)
    }

    /// Begins an attempt, unless the entry already has its run or must wait. The journal is asked unless `has_runs` says
    /// that it has no runs of the entry.
    pub(crate) fn begin(
        &self,
        entry: &EntryId,
        task: &TaskName,
        attempt: u32,
        has_runs: Option<bool>,
    ) -> Result<Begun, StartError> {
        let ended = match has_runs {
            Some(false) => None,
            _ => self.journal.ended(entry)?,
        };
        match ended {
            Some(Ended { outcome, .. }) if outcome.is_success() => return Ok(Begun::Succeeded),
            Some(Ended { attempt: ended, outcome, output }) if ended >= attempt => {
                return Ok(Begun::Ended { outcome, attempt: ended, output });
            }
            _ => (),
        }
        let mut suspects = self.suspects.lock();
        let found = suspects.entries.get(entry).copied();
        let crashes = found.map_or(0, |entry| entry.crashes);
        // An entry with `MAX_CRASHES` or more crashes is not delayed, because its attempt is refused
        // later.
        let is_suspect = (SUSPECT_CRASHES..RetryPolicy::MAX_CRASHES).contains(&crashes);
        let has_waited = found.is_some_and(|entry| entry.has_waited);
        if is_suspect && (!has_waited || suspects.is_running) {
            suspects.entries.insert(entry.clone(), CrashedEntry { crashes, has_waited: true });
            return Ok(Begun::Wait);
        }
        let mark = self.running.mark(entry, task, attempt).map_err(|source| self.error(source))?;
        suspects.is_running |= is_suspect;
        let suspect = is_suspect.then(|| RunningSuspect(Arc::clone(&self.suspects)));
        Ok(Begun::Run { crashes, in_progress: InProgress { mark, _suspect: suspect } })
    }

    /// Returns whether a run ends a count of crashes, of its entry or of its task.
    pub(crate) fn ends_count(&self, run: &Run) -> bool {
        let suspects = self.suspects.lock();
        run.outcome.is_attempt() && suspects.entries.contains_key(&run.entry)
            || run.outcome.is_success() && suspects.tasks.contains(&run.task)
    }

    /// Forgets the counts that a recorded run has ended.
    pub(crate) fn end_count(&self, run: &Run) {
        let mut suspects = self.suspects.lock();
        if run.outcome.is_attempt() {
            suspects.entries.remove(&run.entry);
        }
        if run.outcome.is_success() {
            suspects.tasks.remove(&run.task);
        }
    }

    fn error(&self, source: io::Error) -> StartError {
        StartError::Marks { path: self.path.clone(), source }
    }
}

impl InProgress {
    /// Notes that the attempt has ended: its run is recorded, or is no attempt.
    pub(crate) fn end(self) {
        self.mark.end();
    }
}

impl Drop for RunningSuspect {
    fn drop(&mut self) {
        self.0.lock().is_running = false;
    }
}

#[cfg(test)]
mod tests;
