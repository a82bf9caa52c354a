//! Signals to the processes of a server, and their states in `/proc`.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Sends a signal to a process. Does nothing if the process no longer exists.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        kill_process(pid, signal).ok();
    }
}

/// Returns whether the process runs or is stopped. A zombie counts as dead.
pub(crate) fn is_alive(pid: u32) -> bool {
    status(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// Returns whether the process was stopped by SIGSTOP.
pub(crate) fn is_stopped(pid: u32) -> bool {
    status(pid).is_some_and(|(state, _)| state == 'T')
}

/// Kills a process and all its descendants, and waits until they are gone.
pub(crate) fn kill_family(pid: u32) {
    let mut family = descendants(pid);
    family.insert(pid);
    // Kills the ancestor first, so that it cannot replace a killed child.
    signal(pid, Signal::KILL);
    for member in &family {
        signal(*member, Signal::KILL);
    }
    wait_until("the killed processes to be gone", || !family.iter().any(|pid| is_alive(*pid)));
}

/// Waits until a condition is true. Panics after a minute.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Returns the state and the parent of a process.
fn status(pid: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the process is in parentheses and may contain any character.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn descendants(ancestor: u32) -> BTreeSet<u32> {
    let processes: Vec<(u32, u32)> = fs::read_dir("/proc")
        .expect("there is /proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, status(pid)?.1)))
        .collect();
    let mut found = BTreeSet::new();
    loop {
        let before = found.len();
        for (pid, parent) in &processes {
            if *parent == ancestor || found.contains(parent) {
                found.insert(*pid);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}
