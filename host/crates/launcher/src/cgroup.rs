//! A control group for the program: version 2 of cgroups(7).
//!
//! Killing the group kills all processes of the program at once, even if the program keeps starting new
//! processes. If the controller `pids` is enabled, the group also limits the number of the program's
//! processes.
//!
//! This module decides where the group is created, and reads and writes the group's files. The outer process
//! (see `supervisor`) creates and removes the group. The program's process enters the group before it does
//! anything else.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, getxattr, openat};
use rustix::process::getpid;

use crate::error::LayerError;

/// The prefix of the name of a group. The process id of the launcher that created the group follows.
const PREFIX: &str = "loopabull-launch-";
/// The timeout for removing a group.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(1);
/// The interval between two attempts to remove a group.
const POLL_INTERVAL: Duration = Duration::from_millis(1);
/// The extended attribute that systemd sets on a group that it delegates to a service (CGROUP_DELEGATION in
/// the documentation of systemd).
const DELEGATED: &str = "user.delegate";

/// The control group of one program.
pub(crate) struct Cgroup {
    path: PathBuf,
    /// The opened folder of the group. The program's root file system does not contain the path.
    folder: OwnedFd,
    /// Whether the number of processes in the group is limited.
    pub(crate) is_counted: bool,
}

/// The control group of a launch, if it has one.
pub(crate) enum Group {
    Created(Cgroup),
    /// The group could not be created. The text is the reason.
    Unavailable(String),
    /// The layer was left out.
    LeftOut,
}

impl Group {
    /// Creates a group. The group limits the number of processes if the controller `pids` is enabled.
    pub(crate) fn create(max_processes: Option<u64>) -> Self {
        match Cgroup::create(max_processes) {
            Ok(group) => Self::Created(group),
            Err(error) => Self::Unavailable(error.detail()),
        }
    }

    /// Returns the group. `None` if no group was created.
    pub(crate) fn created(&self) -> Option<&Cgroup> {
        match self {
            Self::Created(group) => Some(group),
            Self::Unavailable(_) | Self::LeftOut => None,
        }
    }
}

impl Cgroup {
    fn create(max_processes: Option<u64>) -> Result<Self, LayerError> {
        let own = own_folder().map_err(LayerError::of("find the control group of this process"))?;
        let parent = delegated_parent(&own).unwrap_or(own);
        remove_orphans(&parent);
        let path = parent.join(format!("{PREFIX}{}", getpid().as_raw_nonzero()));
        let what = format!("create `{}`", path.display());
        // An earlier launcher that was killed may have left a group with our process id in its name.
        fs::remove_dir(&path).ok();
        fs::create_dir(&path).map_err(LayerError::of(what.clone()))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(CWD, &path, flags, Mode::empty()).map_err(LayerError::of(what))?;
        let group = Self { folder, is_counted: false, path };
        if !group.path.join("cgroup.kill").exists() {
            fs::remove_dir(&group.path).ok();
            let source = io::Error::other("the file `cgroup.kill` needs Linux 5.14");
            return Err(LayerError { what: "kill a control group".to_owned(), source });
        }
        // `pids.max` exists only if the parent group enables the controller `pids`. Without the
        // controller, the group does not limit processes.
        let limited = max_processes.map(|max| group.write("pids.max", &max.to_string()));
        Ok(Self { is_counted: limited.is_some_and(|limited| limited.is_ok()), ..group })
    }

    /// Moves the calling process into the group.
    pub(crate) fn enter(&self) -> io::Result<()> {
        self.write("cgroup.procs", "0")
    }

    /// Kills all processes of the group. Returns whether the group still contains a process.
    pub(crate) fn kill(&self) -> io::Result<bool> {
        self.write("cgroup.kill", "1")?;
        let events = openat(&self.folder, "cgroup.events", OFlags::RDONLY, Mode::empty())?;
        let events = io::read_to_string(fs::File::from(events))?;
        Ok(events.lines().any(|line| line == "populated 1"))
    }

    /// Returns the file descriptor of the group's folder.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// Kills the remaining processes of the group, and removes the group.
    pub(crate) fn remove(&self) {
        let deadline = Instant::now() + REMOVAL_TIMEOUT;
        let is_left = || self.kill().unwrap_or(false) || fs::remove_dir(&self.path).is_err();
        while self.path.exists() && is_left() && Instant::now() < deadline {
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let file = openat(&self.folder, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::write(&file, text.as_bytes())?;
        Ok(())
    }
}

/// Returns the folder of the control group of the calling process.
fn own_folder() -> io::Result<PathBuf> {
    let none = || io::Error::other("cgroups of version 2 are not mounted");
    let groups = fs::read_to_string("/proc/self/cgroup")?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::")).ok_or_else(none)?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    mounts.lines().find_map(|line| folder_by(line, Path::new(group))).ok_or_else(none)
}

/// Returns the folder of `group` if this line of `/proc/self/mountinfo` mounts a hierarchy that contains the
/// group. The line has the form `36 35 98:0 ROOT MOUNTPOINT OPTIONS [TAGS] - cgroup2 SOURCE OPTIONS`
/// (proc_pid_mountinfo(5)).
fn folder_by(line: &str, group: &Path) -> Option<PathBuf> {
    let (mount, kind) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(3);
    let (root, place) = (fields.next()?, fields.next()?);
    let is_cgroup2 = kind.split(' ').next() == Some("cgroup2");
    let below = group.strip_prefix(root).ok().filter(|_| is_cgroup2)?;
    Some(if below.as_os_str().is_empty() { place.into() } else { Path::new(place).join(below) })
}

/// Returns the parent group if systemd delegates it to the service of the daemon (`DelegateSubgroup=` in
/// systemd.resource-control(5)). The daemon then runs in a subgroup, and the parent contains no processes.
/// The kernel enables controllers only in a group without processes, so groups are created in the parent.
fn delegated_parent(own: &Path) -> Option<PathBuf> {
    let parent = own.parent()?;
    let mut value = [0; 1];
    let is_delegated = getxattr(parent, DELEGATED, &mut value) == Ok(1) && value == *b"1";
    if is_delegated {
        // The write fails if the controller `pids` does not exist. Then the group does not limit processes.
        fs::write(parent.join("cgroup.subtree_control"), "+pids").ok();
    }
    is_delegated.then(|| parent.to_owned())
}

/// Removes the empty groups that killed launchers left behind.
fn remove_orphans(parent: &Path) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
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
    fn folder_of_a_group_is_found_by_its_mount() {
        let line = "35 25 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw";
        check(line, "/", Some("/sys/fs/cgroup"));
        check(line, "/system.slice/a.service", Some("/sys/fs/cgroup/system.slice/a.service"));
        // In a container only a part of the hierarchy is mounted.
        let part = "35 25 0:30 /pod/c /sys/fs/cgroup rw - cgroup2 cgroup rw";
        check(part, "/pod/c/d", Some("/sys/fs/cgroup/d"));
        check(part, "/elsewhere", None);
        check("35 25 0:30 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids", "/", None);
        check("35 25", "/", None);
    }
}
