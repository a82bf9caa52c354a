//! The limits on the resources of a program.
//!
//! This module defines the limits and the names of their options. The module `pipeline` sets the limits.

/// The limits on the resources of the program.
///
/// Except for `processes`, each limit applies to every process separately (getrlimit(2)). A limit never
/// raises an inherited limit. Without a value, the inherited limit applies, but
/// the soft limit of open files is at most 1024, which is usual. Core dumps are always off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of open file descriptors.
    pub open_files: Option<u64>,
    /// Maximum size of a written file, in bytes.
    pub file_size: Option<u64>,
    /// Maximum processor time, in seconds. A process that exceeds this time is killed.
    pub cpu_seconds: Option<u64>,
    /// Maximum size of the address space, in bytes.
    pub memory: Option<u64>,
    /// Maximum number of processes of the program, if a control group counts them. Otherwise the kernel
    /// counts all processes of the program's user, and does not apply the limit to root.
    pub processes: Option<u64>,
}

impl Limits {
    /// Returns limits without values, so that all inherited limits apply.
    pub fn none() -> Self {
        Self { open_files: None, file_size: None, cpu_seconds: None, memory: None, processes: None }
    }

    /// Returns the name and the value of each option that sets one of these limits.
    pub(crate) fn options(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let limits = [
            ("--limit-open-files", self.open_files),
            ("--limit-file-size", self.file_size),
            ("--limit-cpu-seconds", self.cpu_seconds),
            ("--limit-memory", self.memory),
            ("--limit-processes", self.processes),
        ];
        limits.into_iter().filter_map(|(option, limit)| Some((option, limit?)))
    }

    /// Returns the name of an option and the field for its value. `None` if the option sets no limit.
    pub(crate) fn slot(&mut self, option: &str) -> Option<(&'static str, &mut Option<u64>)> {
        Some(match option {
            "--limit-open-files" => ("--limit-open-files", &mut self.open_files),
            "--limit-file-size" => ("--limit-file-size", &mut self.file_size),
            "--limit-cpu-seconds" => ("--limit-cpu-seconds", &mut self.cpu_seconds),
            "--limit-memory" => ("--limit-memory", &mut self.memory),
            "--limit-processes" => ("--limit-processes", &mut self.processes),
            _ => return None,
        })
    }
}
