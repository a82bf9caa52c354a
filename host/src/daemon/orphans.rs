//! Kills orphans: playbook processes that a killed daemon left running. Also removes the run
//! directories that the daemon left behind.
//!
//! A process is an orphan if its `HOME` is a run directory, if its working directory is in a run
//! directory, or if it is in the session of another orphan. No orphan may be left when the messages
//! are processed again, because a playbook could then run twice at the same time. The daemon calls
//! this module once, at its start.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Duration;

use loopabull_playbook::remove_tree;
use rustix::process::{Pid, Signal, kill_process};

/// Maximum number of scans. With the interval between them, all scans take 10 s.
const SCAN_LIMIT: u32 = 500;
/// Interval between two scans.
const SCAN_INTERVAL: Duration = Duration::from_millis(20);
/// Age above which a directory in `tries` is removed. No command runs that long.
const TRY_AGE_LIMIT: Duration = Duration::from_hours(1);
/// Maximum number of consecutive scans with the result [`Scan::Blank`]. They take 0.5 s.
const BLANK_SCAN_LIMIT: u32 = 25;

/// The result of a scan of all processes on the machine.
enum Scan {
    /// At least one orphan was found and sent SIGKILL.
    Killed,
    /// No orphan was found, but a process has an empty environment. That process may be an orphan
    /// in the middle of `execve`.
    Blank,
    /// No orphan and no process with an empty environment was found.
    Clean,
}

/// Kills the processes that belong to a run directory in `runs`, and removes the directories if
/// possible. Returns the number of killed processes. The caller must hold the lock of the state
/// directory, and must not have started a playbook yet.
///
/// # Errors
///
/// If the processes or the run directories cannot be listed, or if an orphan is still running after
/// 10 s.
pub(super) fn kill_orphans(runs: &Path) -> io::Result<usize> {
    let mut killed = BTreeSet::new();
    let mut blank_scans = 0;
    let mut gone = false;
    // A killed process ends after a moment, and may have started another process just before. So
    // the scan is repeated until no orphan is left.
    for _ in 0..SCAN_LIMIT {
        match scan(runs, &mut killed)? {
            Scan::Killed => blank_scans = 0,
            Scan::Blank if blank_scans < BLANK_SCAN_LIMIT => blank_scans += 1,
            Scan::Blank | Scan::Clean => {
                gone = true;
                break;
            }
        }
        std::thread::sleep(SCAN_INTERVAL);
    }
    if !gone {
        return Err(io::Error::other("an orphaned playbook process does not end after SIGKILL"));
    }
    for entry in fs::read_dir(runs)?.flatten() {
        if let Err(error) = remove_tree(&entry.path()) {
            tracing::warn!("cannot remove `{}`: {error}", entry.path().display());
        }
    }
    Ok(killed.len())
}

/// Removes old directories in `tries`, which killed commands left behind. The directories can
/// contain secrets.
pub(super) fn remove_old_tries(tries: &Path) {
    let is_old = |entry: &fs::DirEntry| {
        let changed = entry.metadata().and_then(|metadata| metadata.modified());
        changed.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > TRY_AGE_LIMIT))
    };
    for entry in fs::read_dir(tries).into_iter().flatten().flatten().filter(is_old) {
        if let Err(error) = remove_tree(&entry.path()) {
            tracing::warn!("cannot remove `{}`: {error}", entry.path().display());
        }
    }
}

/// Sends SIGKILL to each process that belongs to a run directory in `runs`, and to its session.
fn scan(runs: &Path, killed: &mut BTreeSet<i32>) -> io::Result<Scan> {
    let mut result = Scan::Clean;
    let (mut inside, mut sessions) = (Vec::new(), BTreeMap::new());
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let session = Session::of(&entry.path());
        match Owner::of(runs, &entry.path(), session) {
            Owner::Run => inside.push(pid),
            Owner::Unknown if matches!(result, Scan::Clean) => result = Scan::Blank,
            Owner::Unknown | Owner::Other => (),
        }
        sessions.extend(session.map(|session| (pid, session.number)));
    }
    // The launcher starts each playbook in a new session. The daemon's own session is excluded, so
    // that the daemon never kills itself.
    let ours = Session::of(Path::new("/proc/self")).map(|session| session.number);
    let found: BTreeSet<i32> = inside.iter().filter_map(|pid| sessions.get(pid).copied()).collect();
    let is_of_run = |session: &i32| found.contains(session) && Some(*session) != ours;
    let others = sessions.iter().filter(|(_, session)| is_of_run(session)).map(|(pid, _)| *pid);
    for pid in inside.into_iter().chain(others.collect::<Vec<_>>()) {
        if Pid::from_raw(pid).is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok()) {
            killed.insert(pid);
            result = Scan::Killed;
        }
    }
    Ok(result)
}

/// Whether a process belongs to a run.
enum Owner {
    Run,
    Other,
    /// The process has an empty environment. It may be in the middle of `execve`.
    Unknown,
}

/// The session of a process, from proc_pid_stat(5).
#[derive(Clone, Copy)]
struct Session {
    number: i32,
    has_terminal: bool,
}

impl Session {
    fn of(process: &Path) -> Option<Self> {
        let stat = fs::read(process.join("stat")).ok()?;
        // The program's name is in parentheses and can contain any byte, so parsing starts after
        // the last parenthesis.
        let end = stat.iter().rposition(|&byte| byte == b')')?;
        let fields = str::from_utf8(&stat[end + 1..]).ok()?;
        let mut fields = fields.split_ascii_whitespace().skip(3);
        let number = fields.next()?.parse().ok()?;
        Some(Self { number, has_terminal: fields.next()? != "0" })
    }
}

impl Owner {
    /// Classifies a process by its directory in /proc.
    fn of(runs: &Path, process: &Path, session: Option<Session>) -> Self {
        let mut home = OsString::from("HOME=");
        home.push(runs);
        let mut home = home.into_vec();
        home.push(b'/');
        // If a process has a terminal, its working directory is ignored. It may be the shell of a
        // person who inspects the run directory.
        let works_there = session.is_some_and(|session| !session.has_terminal)
            && fs::read_link(process.join("cwd"))
                .is_ok_and(|directory| directory.starts_with(runs) && directory != runs);
        // If the environment cannot be read, the process belongs to another user or has ended. In
        // both cases, the process is not an orphan.
        let Ok(environment) = fs::read(process.join("environ")) else { return Self::Other };
        let has_home =
            environment.split(|&byte| byte == 0).any(|variable| variable.starts_with(&home));
        if works_there || has_home {
            return Self::Run;
        }
        // Kernel threads and ended processes also have an empty environment, but they have no
        // executable.
        let is_blank = environment.is_empty() && fs::read_link(process.join("exe")).is_ok();
        if is_blank { Self::Unknown } else { Self::Other }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test needs an orphaned process")]
    fn processes_of_a_run_directory_are_killed_and_the_directory_is_removed() {
        let runs = tempfile::tempdir().unwrap();
        let home = runs.path().join("r-1");
        fs::create_dir(&home).unwrap();
        fs::write(home.join("message.yml"), "---").unwrap();
        fs::write(runs.path().join("stray"), "no directory").unwrap();
        let mut sleep = Command::new("/bin/sleep");
        sleep.arg("600").env("HOME", &home).stdin(Stdio::null());
        let mut inside = sleep.spawn().unwrap();
        let mut outside = sleep.env("HOME", runs.path()).spawn().unwrap();
        // Two processes without the run's `HOME`: the working directory of one is the run
        // directory, and the other is only in the session.
        let shell = "cd /; env -i sleep 600 & cd \"$HOME\"; env -i sleep 600 & cd /; echo; wait";
        let mut session = Command::new("/usr/bin/setsid");
        session.args(["/bin/sh", "-c", shell]).env("HOME", &home).stdout(Stdio::piped());
        let mut session = session.spawn().unwrap();
        let mut started = [0];
        session.stdout.as_mut().unwrap().read_exact(&mut started).unwrap();
        assert_eq!(kill_orphans(runs.path()).unwrap(), 4);
        assert!(!inside.wait().unwrap().success());
        assert!(!session.wait().unwrap().success());
        assert!(outside.try_wait().unwrap().is_none());
        outside.kill().unwrap();
        outside.wait().unwrap();
        assert!(!home.exists());
    }
}
