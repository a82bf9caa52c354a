//! The limits on a program's use of resources.
//!
//! Owns the set of limits and the names of their options. Must not know how they are set. Before it:
//! the arguments; after it: the pipeline, which sets the limits.

/// The resources that the program may use.
///
/// These are the kernel's resource limits, see getrlimit(2): each applies to every process by itself,
/// not to the program and its children together, and none ever raises an inherited limit. Without a
/// value the inherited limit stays. Core dumps are always off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of open descriptors.
    pub open_files: Option<u64>,
    /// Maximum size of a file that is written, in bytes.
    pub file_size: Option<u64>,
    /// Processor time in seconds, after which the process is killed.
    pub cpu_seconds: Option<u64>,
    /// Maximum address space in bytes.
    pub memory: Option<u64>,
    /// Maximum number of processes of the program, if its control group counts them. Otherwise it is
    /// the maximum for the program's user, including processes outside, and the kernel does not apply
    /// it to root.
    pub processes: Option<u64>,
}

impl Limits {
    /// Returns limits that change nothing.
    pub fn none() -> Self {
        Self { open_files: None, file_size: None, cpu_seconds: None, memory: None, processes: None }
    }

    /// Returns the options that set these limits.
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

    /// Returns an option's name and the field that takes its value, if it is an option of a limit.
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
