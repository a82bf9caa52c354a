//! Readiness: the current problems of the daemon's parts.
//!
//! A part reports its problem when the problem begins, and resolves it when the problem ends. The
//! daemon is ready if there are no problems. `/readyz`, `/api/v1/status` and the command `status` show all
//! problems. The lock is held for a moment and never over an `await`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

/// The problems of all parts.
#[derive(Debug, Default)]
pub(crate) struct Health {
    problems: Mutex<BTreeMap<Part, String>>,
}

/// A part of the daemon that can have a problem. A part has at most one problem at a time.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Part {
    /// Publishing of messages to the queues.
    Ingest,
    /// The quarantine, which stores unusable messages.
    Quarantine,
    /// Rereading of the CA and CRL files.
    Signers,
    /// Validity period of the CA and the CRL.
    Signatures,
    /// One source of messages, by its name.
    Source(String),
    /// The directories of tasks and playbooks.
    Tasks,
    /// The first check of the playbooks.
    Playbooks,
    /// Tasks that have messages and are not installed.
    UnknownTasks,
    /// Counting of the crash of the last daemon.
    Crashes,
    /// Reading of the pauses, and release of held entries.
    Pauses,
    /// Sending of messages that earlier daemons left in the outbox.
    Outbox,
    /// Publishing of emitted messages on the bus.
    Publish,
    /// One worker, by its number, counted from 1.
    Worker(u32),
    /// An operation that a worker, or what follows behind it, must finish.
    WorkerNeeds(u32, Need),
}

/// The part of the daemon that a worker is waiting for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Need {
    /// Looking up and marking an attempt that is about to begin.
    Begin,
    /// Recording of runs.
    Journal,
    /// The resources of this machine that a run needs, for example file descriptors.
    Machine,
    Outbox,
    /// Settling of deliveries.
    Queue,
    /// Routing of external messages.
    Route,
}

/// A guard for the problem of one part. Dropping the guard resolves the problem that it reported.
#[derive(Debug)]
pub(crate) struct Condition<'a> {
    health: &'a Health,
    part: Part,
    has_reported: AtomicBool,
}

impl Health {
    /// Sets the problem of a part. Replaces an earlier problem of the part.
    pub(crate) fn report(&self, part: Part, problem: impl fmt::Display) {
        self.problems.lock().insert(part, problem.to_string());
    }

    /// Removes the problem of a part, if it has one.
    pub(crate) fn resolve(&self, part: &Part) {
        self.problems.lock().remove(part);
    }

    /// Returns a guard for the problem of a part. Does not report a problem.
    pub(crate) fn condition(&self, part: Part) -> Condition<'_> {
        Condition { health: self, part, has_reported: AtomicBool::new(false) }
    }

    /// Returns one line for each problem, or no lines if the daemon is ready.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.problems.lock().iter().map(|(part, problem)| format!("{part}: {problem}")).collect()
    }
}

impl Condition<'_> {
    /// Sets the problem of the part.
    pub(crate) fn report(&self, problem: impl fmt::Display) {
        self.has_reported.store(true, Ordering::Relaxed);
        self.health.report(self.part.clone(), problem);
    }

    /// Removes the problem that this guard reported, if there is one.
    pub(crate) fn resolve(&self) {
        if self.has_reported.swap(false, Ordering::Relaxed) {
            self.health.resolve(&self.part);
        }
    }

    /// Returns the part of this guard.
    pub(crate) fn part(&self) -> &Part {
        &self.part
    }
}

impl Drop for Condition<'_> {
    fn drop(&mut self) {
        self.resolve();
    }
}

impl fmt::Display for Part {
    /// Writes the name that `/readyz` shows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ingest => f.write_str("ingest"),
            Self::Quarantine => f.write_str("quarantine"),
            Self::Signers => f.write_str("signers"),
            Self::Signatures => f.write_str("signatures"),
            Self::Source(name) => f.write_str(name),
            Self::Tasks => f.write_str("tasks"),
            Self::Playbooks => f.write_str("playbooks"),
            Self::UnknownTasks => f.write_str("tasks that are not installed"),
            Self::Crashes => f.write_str("crash of the last daemon"),
            Self::Pauses => f.write_str("pauses"),
            Self::Outbox => f.write_str("outbox"),
            Self::Publish => f.write_str("publish"),
            Self::Worker(number) => write!(f, "worker {number}"),
            Self::WorkerNeeds(number, need) => write!(f, "worker {number}, {need}"),
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Begin => "begin of a run",
            Self::Journal => "journal",
            Self::Machine => "start of a run",
            Self::Outbox => "outbox",
            Self::Queue => "queue",
            Self::Route => "external message",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_one_problem_until_it_is_resolved() {
        let health = Health::default();
        health.report(Part::Worker(2), "first");
        health.report(Part::Worker(2), "second");
        health.report(Part::WorkerNeeds(2, Need::Journal), "the disk is full");
        assert_eq!(health.problems(), ["worker 2: second", "worker 2, journal: the disk is full"]);
        health.resolve(&Part::Worker(2));
        assert_eq!(health.problems(), ["worker 2, journal: the disk is full"]);
    }

    #[test]
    fn a_dropped_guard_resolves_its_problem_only() {
        let health = Health::default();
        health.report(Part::Tasks, "unreadable");
        let condition = health.condition(Part::Publish);
        assert_eq!(health.problems(), ["tasks: unreadable"]);
        condition.report("not connected");
        assert_eq!(health.problems(), ["tasks: unreadable", "publish: not connected"]);
        // A guard that reported nothing resolves nothing.
        drop(health.condition(Part::Publish));
        assert_eq!(health.problems().len(), 2);
        drop(condition);
        assert_eq!(health.problems(), ["tasks: unreadable"]);
    }
}
