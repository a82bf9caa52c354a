//! What a daemon that was killed has left behind: playbooks that still run, and their directories.
//!
//! A playbook and everything that it started has the run's directory as its `HOME`, and that is how
//! they are found; what has another by now, by its working directory or its session. It must be gone
//! before its message is run again.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Duration;

use loopabull_playbook::remove_tree;
use rustix::process::{Pid, Signal, kill_process};

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
pub(super) fn sweep(runs: &Path) -> io::Result<usize> {
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
pub(super) fn sweep_tries(tries: &Path) {
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

/// Sends SIGKILL to each process that lives beneath `runs`, and to all of its session.
fn look(runs: &Path, killed: &mut BTreeSet<i32>) -> io::Result<Look> {
    let mut seen = Look::None;
    let (mut inside, mut sessions) = (Vec::new(), BTreeMap::new());
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let session = Session::of(&entry.path());
        match lives_in(runs, &entry.path(), session) {
            Lives::There => inside.push(pid),
            Lives::Blank if matches!(seen, Look::None) => seen = Look::Blank,
            Lives::Blank | Lives::Elsewhere => (),
        }
        sessions.extend(session.map(|session| (pid, session.number)));
    }
    // The launcher gives each playbook a session of its own. One that we are in is none of those.
    let ours = Session::of(Path::new("/proc/self")).map(|session| session.number);
    let found: BTreeSet<i32> = inside.iter().filter_map(|pid| sessions.get(pid).copied()).collect();
    let is_of_one = |session: &i32| found.contains(session) && Some(*session) != ours;
    let others = sessions.iter().filter(|(_, session)| is_of_one(session)).map(|(pid, _)| *pid);
    for pid in inside.into_iter().chain(others.collect::<Vec<_>>()) {
        if Pid::from_raw(pid).is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok()) {
            killed.insert(pid);
            seen = Look::Found;
        }
    }
    Ok(seen)
}

/// Where a process lives.
enum Lives {
    There,
    Elsewhere,
    /// It has no environment (yet).
    Blank,
}

/// What of a process proc_pid_stat(5) tells.
#[derive(Clone, Copy)]
struct Session {
    number: i32,
    has_terminal: bool,
}

impl Session {
    fn of(process: &Path) -> Option<Self> {
        let stat = fs::read(process.join("stat")).ok()?;
        // The name of the program, in parentheses, may be anything.
        let end = stat.iter().rposition(|&byte| byte == b')')?;
        let fields = str::from_utf8(&stat[end + 1..]).ok()?;
        let mut fields = fields.split_ascii_whitespace().skip(3);
        let number = fields.next()?.parse().ok()?;
        Some(Self { number, has_terminal: fields.next()? != "0" })
    }
}

/// Looks at a process by its directory in /proc.
fn lives_in(runs: &Path, process: &Path, session: Option<Session>) -> Lives {
    let mut home = OsString::from("HOME=");
    home.push(runs);
    let mut home = home.into_vec();
    home.push(b'/');
    // A person who has gone there to look is not one of them.
    let works_there = session.is_some_and(|session| !session.has_terminal)
        && fs::read_link(process.join("cwd"))
            .is_ok_and(|directory| directory.starts_with(runs) && directory != runs);
    // Another user's process cannot be read, and one that has ended has no environment.
    let Ok(environment) = fs::read(process.join("environ")) else { return Lives::Elsewhere };
    let is_at_home =
        environment.split(|&byte| byte == 0).any(|variable| variable.starts_with(&home));
    if works_there || is_at_home {
        return Lives::There;
    }
    // A thread of the kernel and a process that has ended have no program either.
    let is_blank = environment.is_empty() && fs::read_link(process.join("exe")).is_ok();
    if is_blank { Lives::Blank } else { Lives::Elsewhere }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
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
        // With no environment of the run any more: one works there, one is of the session of one that is.
        let shell = "cd /; env -i sleep 600 & cd \"$HOME\"; env -i sleep 600 & cd /; echo; wait";
        let mut session = Command::new("/usr/bin/setsid");
        session.args(["/bin/sh", "-c", shell]).env("HOME", &home).stdout(Stdio::piped());
        let mut session = session.spawn().unwrap();
        let mut started = [0];
        session.stdout.as_mut().unwrap().read_exact(&mut started).unwrap();
        assert_eq!(sweep(runs.path()).unwrap(), 4);
        assert!(!inside.wait().unwrap().success());
        assert!(!session.wait().unwrap().success());
        assert!(outside.try_wait().unwrap().is_none());
        outside.kill().unwrap();
        outside.wait().unwrap();
        assert!(!home.exists());
    }
}
