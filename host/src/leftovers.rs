//! What a daemon that was killed has left behind: playbooks that still run, and their directories.
//!
//! A playbook and everything that it started has the run's directory as its `HOME`, and that is how
//! they are found. It must be gone before its message is run again.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::playbook::folder::remove_tree;

/// How often we look whether all are gone, and the pause between: 10 s in all.
const LOOKS: u32 = 500;
const PAUSE: Duration = Duration::from_millis(20);
/// When a try is one that nobody waits for any more.
const OLD: Duration = Duration::from_hours(1);
/// How many looks in a row may find only processes that have no environment (yet): 0.5 s.
const BLANK_LOOKS: u32 = 25;

/// What a look at the processes found.
enum Look {
    /// One that lives in a run's directory. It was sent SIGKILL.
    Found,
    /// None, but one that has no environment: it may be in the middle of `execve`.
    Blank,
    None,
}

/// Kills what still runs in the directories beneath `runs`, and removes them as far as that goes.
/// Returns how many processes were killed. Only the one daemon of a state directory may call this,
/// before it starts a playbook.
///
/// # Errors
///
/// If there still is one after 10 s.
pub fn sweep(runs: &Path) -> io::Result<usize> {
    let mut killed = BTreeSet::new();
    let mut blank_looks = 0;
    let mut gone = false;
    // Again until a look finds none: what is killed may have been about to start another, and takes
    // a moment to go.
    for _ in 0..LOOKS {
        match look(runs, &mut killed)? {
            Look::Found => blank_looks = 0,
            Look::Blank if blank_looks < BLANK_LOOKS => blank_looks += 1,
            Look::Blank | Look::None => {
                gone = true;
                break;
            }
        }
        std::thread::sleep(PAUSE);
    }
    if !gone {
        return Err(io::Error::other("a process of a playbook does not end by SIGKILL"));
    }
    for entry in fs::read_dir(runs)?.flatten() {
        if let Err(error) = remove_tree(&entry.path()) {
            tracing::warn!("cannot remove `{}`: {error}", entry.path().display());
        }
    }
    Ok(killed.len())
}

/// Removes what commands that were killed have left in `tries`, with secrets in it: whatever is older than
/// any of them may be.
pub fn sweep_tries(tries: &Path) {
    let is_old = |entry: &fs::DirEntry| {
        let changed = entry.metadata().and_then(|metadata| metadata.modified());
        changed.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > OLD))
    };
    for entry in fs::read_dir(tries).into_iter().flatten().flatten().filter(is_old) {
        if let Err(error) = remove_tree(&entry.path()) {
            tracing::warn!("cannot remove `{}`: {error}", entry.path().display());
        }
    }
}

/// Sends SIGKILL to each process whose `HOME` is beneath `runs`.
fn look(runs: &Path, killed: &mut BTreeSet<i32>) -> io::Result<Look> {
    let mut home = OsString::from("HOME=");
    home.push(runs);
    let mut home = home.into_vec();
    home.push(b'/');
    let mut seen = Look::None;
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // Another user's process cannot be read, and one that has ended has no environment.
        let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
        if environment.is_empty() {
            // A thread of the kernel and a process that has ended have no program either.
            if matches!(seen, Look::None) && fs::read_link(entry.path().join("exe")).is_ok() {
                seen = Look::Blank;
            }
        } else if environment.split(|&byte| byte == 0).any(|variable| variable.starts_with(&home))
            && Pid::from_raw(pid).is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
        {
            killed.insert(pid);
            seen = Look::Found;
        }
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test needs a process to be left behind")]
    fn what_lives_in_a_run_directory_is_killed_and_the_directory_removed() {
        let runs = tempfile::tempdir().unwrap();
        let home = runs.path().join("r-1");
        fs::create_dir(&home).unwrap();
        fs::write(home.join("message.yml"), "---").unwrap();
        fs::write(runs.path().join("stray"), "no directory").unwrap();
        let mut sleep = Command::new("/bin/sleep");
        sleep.arg("600").env("HOME", &home).stdin(Stdio::null());
        let mut inside = sleep.spawn().unwrap();
        let mut outside = sleep.env("HOME", runs.path()).spawn().unwrap();
        assert_eq!(sweep(runs.path()).unwrap(), 1);
        assert!(!inside.wait().unwrap().success());
        assert!(outside.try_wait().unwrap().is_none());
        outside.kill().unwrap();
        outside.wait().unwrap();
        assert!(!home.exists());
    }
}
