//! The processes that descend from this one.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;

use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

/// Returns all descendants of the calling process that have not ended, children of children included.
///
/// By `/proc`, so it may miss one that is just being made: whoever wants them all gone asks again.
///
/// # Errors
///
/// If `/proc` cannot be read: then nothing is known.
pub(crate) fn descendants() -> io::Result<HashSet<Pid>> {
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        let stat = fs::read_to_string(entry.path().join("stat"));
        if let (Some(pid), Ok(stat)) = (pid, stat)
            && let Some((state, parent)) = state_and_parent(&stat)
        {
            parents.insert(pid, (state, parent));
        }
    }
    let own = getpid().as_raw_nonzero().get();
    let is_ours = |mut pid: i32| {
        // Numbers may be given anew while we read: no chain is longer than there are processes.
        for _ in 0..=parents.len() {
            match parents.get(&pid) {
                Some((_, parent)) if *parent == own => return true,
                Some((_, parent)) => pid = *parent,
                None => return false,
            }
        }
        false
    };
    let alive = parents.iter().filter(|(_, (state, _))| !matches!(state, 'Z' | 'X'));
    Ok(alive.filter_map(|(&pid, _)| Pid::from_raw(pid).filter(|_| is_ours(pid))).collect())
}

/// Kills a process if it is a descendant of the calling one. Tells whether it was.
pub(crate) fn kill(pid: Pid) -> bool {
    // The number may by now be another process's; a descriptor stays that of one.
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    is_descendant(pid) && pidfd_send_signal(process, Signal::KILL).is_ok()
}

fn is_descendant(pid: Pid) -> bool {
    let own = getpid().as_raw_nonzero().get();
    let mut ancestor = pid.as_raw_nonzero().get();
    while ancestor > 1 && ancestor != own {
        let stat = fs::read_to_string(format!("/proc/{ancestor}/stat"));
        let parent = stat.ok().and_then(|stat| Some(state_and_parent(&stat)?.1));
        ancestor = parent.unwrap_or_default();
    }
    ancestor == own
}

/// Reads `/proc/PID/stat`: `PID (NAME) STATE PPID ...`, where the name may hold anything.
fn state_and_parent(stat: &str) -> Option<(char, i32)> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut words = rest.split(' ');
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_descendant_is_killed() {
        // Whoever runs the tests, or the first process of all.
        for pid in [rustix::process::getppid(), Some(Pid::INIT)] {
            assert!(!kill(pid.unwrap()));
        }
        #[expect(clippy::disallowed_methods, reason = "the launcher has no other way to a child")]
        let mut child = std::process::Command::new("/bin/sleep").arg("600").spawn().unwrap();
        assert!(kill(Pid::from_child(&child)));
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(9));
    }

    #[test]
    fn a_name_with_brackets_is_a_name() {
        assert_eq!(state_and_parent("7 (a) b) S 3 7 7 0"), Some(('S', 3)));
        assert_eq!(state_and_parent("7"), None);
    }
}
