//! How much a program may use.
//!
//! Owns which limits there are and the names of their options. Must not know how they are set.

/// Says how much the program may use.
///
/// They are resource limits of the kernel, see getrlimit(2): each holds for one process, not for
/// the program and its children together, and none ever raises what the launcher was itself
/// given. Without one, what the launcher was given stays. Core dumps are always off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many descriptors may be open at once.
    pub open_files: Option<u64>,
    /// The size in bytes to which a file may grow.
    pub file_size: Option<u64>,
    /// The processor time in seconds after which the process is killed.
    pub cpu_seconds: Option<u64>,
    /// The address space in bytes.
    pub memory: Option<u64>,
    /// How many processes the program may have, if its control group counts them; else its user, those
    /// outside included, and the kernel does not hold root to it then.
    pub processes: Option<u64>,
}

impl Limits {
    /// No limit that was not there before.
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

    /// Returns where the value of an option goes, if it is one of these.
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
