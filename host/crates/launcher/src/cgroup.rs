//! A control group of the program's own: version 2 of cgroups(7).
//!
//! With it all that a program starts is killed at once, however fast it starts more, and its processes
//! are counted for it alone where the machine counts them in groups. Owns where the group is made, and
//! its files. Before it: the supervisor, which makes it and removes it; after it: the program, which
//! enters it before anything else.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, getxattr, openat};
use rustix::process::getpid;

/// How our groups are called, before the number of the process that makes one.
const PREFIX: &str = "loopabull-launch-";
/// How long the end of a group may take, and how often it is tried meanwhile.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(1);
/// What systemd writes on a group that is handed over to a service, see systemd's CGROUP_DELEGATION.
const DELEGATED: &str = "user.delegate";

/// A group for one program.
pub(crate) struct Cgroup {
    path: PathBuf,
    /// Held open, because in a room the path leads nowhere.
    folder: OwnedFd,
    /// Whether the number of its processes is limited.
    pub(crate) is_counted: bool,
}

/// Whether there is one.
pub(crate) enum Group {
    Own(Cgroup),
    /// The reason.
    None(String),
    Unwanted,
}

impl Group {
    /// Makes a group in which there may be so many processes.
    pub(crate) fn make(processes: Option<u64>) -> Self {
        match Cgroup::make(processes) {
            Ok(group) => Self::Own(group),
            Err((what, error)) => Self::None(format!("cannot {what}: {error}")),
        }
    }

    /// Returns the group, if there is one.
    pub(crate) fn own(&self) -> Option<&Cgroup> {
        match self {
            Self::Own(group) => Some(group),
            Self::None(_) | Self::Unwanted => None,
        }
    }
}

impl Cgroup {
    fn make(processes: Option<u64>) -> Result<Self, (String, io::Error)> {
        let find = |error| ("find the group of this process".to_owned(), error);
        let own = own_folder().map_err(find)?;
        let place = delegated_parent(&own).unwrap_or(own);
        remove_left(&place);
        let path = place.join(format!("{PREFIX}{}", getpid().as_raw_nonzero()));
        let make = |error| (format!("make `{}`", path.display()), error);
        // Of a launcher that was killed and had our number.
        fs::remove_dir(&path).ok();
        fs::create_dir(&path).map_err(make)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let made = openat(CWD, &path, flags, Mode::empty()).map_err(|error| make(error.into()));
        let group = Self { folder: made?, is_counted: false, path };
        if !group.path.join("cgroup.kill").exists() {
            fs::remove_dir(&group.path).ok();
            return Err(("kill a group".to_owned(), io::Error::other("this needs Linux 5.14")));
        }
        // The file is there where the group above lets this one have the controller.
        let limited = processes.map(|most| group.write("pids.max", &most.to_string()));
        Ok(Self { is_counted: limited.is_some_and(|limited| limited.is_ok()), ..group })
    }

    /// Moves the calling process into the group.
    pub(crate) fn enter(&self) -> io::Result<()> {
        self.write("cgroup.procs", "0")
    }

    /// Kills all processes of the group. Tells whether there were any.
    pub(crate) fn kill(&self) -> io::Result<bool> {
        self.write("cgroup.kill", "1")?;
        let events = openat(&self.folder, "cgroup.events", OFlags::RDONLY, Mode::empty())?;
        let events = io::read_to_string(fs::File::from(events))?;
        Ok(events.lines().any(|line| line == "populated 1"))
    }

    /// Returns its folder.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// Kills what may still be in the group, and removes it.
    pub(crate) fn end(&self) {
        let deadline = Instant::now() + PATIENCE;
        let is_left = || self.kill().unwrap_or(false) || fs::remove_dir(&self.path).is_err();
        while self.path.exists() && is_left() && Instant::now() < deadline {
            std::thread::sleep(PAUSE);
        }
    }

    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let file = openat(&self.folder, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::write(&file, text.as_bytes())?;
        Ok(())
    }
}

/// Returns the folder of the group in which the calling process is.
fn own_folder() -> io::Result<PathBuf> {
    let none = || io::Error::other("cgroups of version 2 are not mounted");
    let groups = fs::read_to_string("/proc/self/cgroup")?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::")).ok_or_else(none)?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    mounts.lines().find_map(|line| folder_by(line, Path::new(group))).ok_or_else(none)
}

/// Reads a line of `/proc/self/mountinfo`, proc_pid_mountinfo(5), and returns where this group is by it:
/// `36 35 98:0 ROOT PLACE OPTIONS [TAGS] - cgroup2 SOURCE OPTIONS`.
fn folder_by(line: &str, group: &Path) -> Option<PathBuf> {
    let (mount, kind) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(3);
    let (root, place) = (fields.next()?, fields.next()?);
    let is_ours = kind.split(' ').next() == Some("cgroup2");
    let below = group.strip_prefix(root).ok().filter(|_| is_ours)?;
    Some(if below.as_os_str().is_empty() { place.into() } else { Path::new(place).join(below) })
}

/// Returns the group above, if a service was given that and runs below it (`DelegateSubgroup=` of
/// systemd.resource-control(5)): only there, where no process is, controllers can be handed on.
fn delegated_parent(own: &Path) -> Option<PathBuf> {
    let parent = own.parent()?;
    let mut value = [0; 1];
    let is_delegated = getxattr(parent, DELEGATED, &mut value) == Ok(1) && value == *b"1";
    if is_delegated {
        // Fails where there is no such controller.
        fs::write(parent.join("cgroup.subtree_control"), "+pids").ok();
    }
    is_delegated.then(|| parent.to_owned())
}

/// Removes the groups of launchers that were killed.
fn remove_left(place: &Path) {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            fs::remove_dir(entry.path()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, group: &str, expected: Option<&str>) {
        assert_eq!(folder_by(line, Path::new(group)), expected.map(PathBuf::from), "{line}");
    }

    #[test]
    fn the_folder_of_a_group_is_found() {
        let line = "35 25 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw";
        check(line, "/", Some("/sys/fs/cgroup"));
        check(line, "/system.slice/a.service", Some("/sys/fs/cgroup/system.slice/a.service"));
        // A part of the hierarchy is mounted, as in a container.
        let part = "35 25 0:30 /pod/c /sys/fs/cgroup rw - cgroup2 cgroup rw";
        check(part, "/pod/c/d", Some("/sys/fs/cgroup/d"));
        check(part, "/elsewhere", None);
        check("35 25 0:30 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids", "/", None);
        check("35 25", "/", None);
    }
}
