//! Finds and kills the descendants of the calling process.
//!
//! Descendants are found in `/proc`. The kernel reuses process ids, so this module checks that it does not
//! kill a process that is not a descendant.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;

use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

/// Returns all running descendants of the calling process, direct and indirect.
///
/// The result may lack a process that is created at the same time. A caller that kills all descendants must
/// therefore repeat the call until the result is empty.
///
/// # Errors
///
/// Fails if `/proc` cannot be read.
pub(crate) fn descendants() -> io::Result<HashSet<Pid>> {
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        if let Some((pid, stat)) = pid.and_then(|pid| Some((pid, Stat::of(pid)?))) {
            parents.insert(pid, stat);
        }
    }
    let own = getpid().as_raw_nonzero().get();
    let is_ours = |mut pid: i32| {
        // The kernel may reuse process ids while `/proc` is read, so the parents could form a loop. The
        // search ends after as many steps as there are processes.
        for _ in 0..=parents.len() {
            match parents.get(&pid) {
                Some(stat) if stat.parent == own => return true,
                Some(stat) => pid = stat.parent,
                None => return false,
            }
        }
        false
    };
    let alive = parents.iter().filter(|(_, stat)| stat.is_alive);
    Ok(alive.filter_map(|(&pid, _)| Pid::from_raw(pid).filter(|_| is_ours(pid))).collect())
}

/// Returns the children of the calling process, including those that have ended. `None` if the kernel does not
/// list them (CONFIG_PROC_CHILDREN).
///
/// The list can lack a child if another one ends at the same time (proc_pid_task(5)), so a caller must repeat
/// the call.
pub(crate) fn children() -> Option<HashSet<Pid>> {
    let list = fs::read_to_string("/proc/thread-self/children").ok()?;
    Some(list.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect())
}

/// Kills a process if it is a descendant of the caller. Returns whether the process got the signal.
pub(crate) fn kill(pid: Pid) -> bool {
    // Another process may have this process id by now. A pidfd always refers to the same process, so the
    // pidfd is opened before the check.
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    // A process that has ended and was not reaped yet would take the signal too.
    let is_alive = Stat::of(pid.as_raw_nonzero().get()).is_some_and(|stat| stat.is_alive);
    is_alive && is_descendant(pid) && pidfd_send_signal(process, Signal::KILL).is_ok()
}

fn is_descendant(pid: Pid) -> bool {
    let own = getpid().as_raw_nonzero().get();
    let mut ancestor = pid.as_raw_nonzero().get();
    while ancestor > 1 && ancestor != own {
        ancestor = Stat::of(ancestor).map_or(0, |stat| stat.parent);
    }
    ancestor == own
}

/// The fields of `/proc/PID/stat` that this module uses (proc_pid_stat(5)).
#[derive(Debug, Eq, PartialEq)]
struct Stat {
    parent: i32,
    is_alive: bool,
}

impl Stat {
    fn of(pid: i32) -> Option<Self> {
        // The file contains the name of the process, which may be invalid UTF-8.
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(&String::from_utf8_lossy(&stat))
    }

    /// Parses `PID (NAME) STATE PPID ...`. NAME may contain spaces and parentheses.
    fn parse(stat: &str) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(") ")?;
        let words: Vec<&str> = rest.split(' ').collect();
        let has_ended = matches!(*words.first()?, "Z" | "X");
        // If only the first thread has ended, the state is "Z" although other threads run.
        let threads: u32 = words.get(17)?.parse().ok()?;
        Some(Self { parent: words.get(1)?.parse().ok()?, is_alive: !has_ended || threads > 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_descendants_are_killed() {
        // The process that runs the tests and process 1 are not descendants.
        for pid in [rustix::process::getppid(), Some(Pid::INIT)] {
            assert!(!kill(pid.unwrap()));
        }
        #[expect(clippy::disallowed_methods, reason = "the launcher has no other way to a child")]
        let mut child = std::process::Command::new("/bin/sleep").arg("600").spawn().unwrap();
        assert!(kill(Pid::from_child(&child)));
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(9));
    }

    #[test]
    fn process_name_may_contain_parentheses() {
        let stat = |state: &str, threads: u32| {
            Stat::parse(&format!("7 (a) b) {state} 3{} {threads} 0", " 0".repeat(15)))
        };
        let process = |is_alive| Some(Stat { parent: 3, is_alive });
        assert_eq!([stat("S", 1), stat("Z", 1)], [process(true), process(false)]);
        assert_eq!(stat("Z", 2), process(true), "another thread still runs");
        assert_eq!(Stat::parse("7"), None);
    }
}
