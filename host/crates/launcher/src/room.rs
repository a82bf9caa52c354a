//! Namespaces, and a root directory in which nothing is but what was granted.
//!
//! Owns the first steps of the first process of the namespaces. Everything granted is mounted at the
//! place where it is outside, so that no path changes its meaning; links on the way are made again.
//! What nobody granted is not there: no socket of a container engine or an agent, whatever Landlock
//! of this kernel can tell of sockets. Before it: the supervisor, which makes the namespaces; after
//! it: the program's own layers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change,
    mount_remount, unmount,
};
use rustix::process::{getegid, geteuid, pivot_root};

use crate::confinement::Confinement;
use crate::privileges::User;
use crate::sys::{self, Mount};
use crate::system;

/// Where the new root is mounted before it is the root. It must be there on every machine.
const DOOR: &str = "/tmp";
/// Where the old root is until everything is in its place.
const OLD: &str = "/.old";
/// What Linux itself allows on the way of one path, see path_resolution(7).
const MAX_LINKS: usize = 40;
/// What all the processes of a program may keep in `/dev/shm` together.
const SHARED_MEMORY: &std::ffi::CStr = c"mode=1777,size=256m";
/// The list of users, and how many fields a line of it has.
const USERS: &str = "/etc/passwd";
const FIELDS: usize = 7;
/// Terminals of the program's own, which everybody there may make.
const TERMINALS: &std::ffi::CStr = c"newinstance,ptmxmode=0666,mode=620";

/// What could not be done, as the rest of "cannot ...", and why.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) what: String,
    pub(crate) source: io::Error,
}

/// Furnishes the room. The caller is the first process of its namespaces.
pub(crate) fn furnish(confinement: &Confinement) -> Result<(), Trouble> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    cannot("keep mounts private", mount_change("/", private))?;
    if confinement.files.sees_everything() {
        // Nothing can be left out of everything; only what is about processes is our own.
        return fresh_mounts();
    }
    // Directories that are made here are for the program too, whoever it is.
    sys::set_umask(0o022);
    cannot("mount a new root", temporary(DOOR, c"mode=755,size=4m"))?;
    let put_old = format!("{DOOR}{OLD}");
    cannot("make a place for the old root", fs::create_dir(&put_old))?;
    cannot("change the root", pivot_root(DOOR, put_old.as_str()))?;
    cannot("enter the new root", std::env::set_current_dir("/"))?;
    let mut room = Room { exposed: BTreeSet::new() };
    for (path, grant) in granted(confinement) {
        let exposed = room.expose(&path, grant);
        cannot(&format!("show `{}`", path.display()), exposed)?;
    }
    for place in ["/proc", "/dev/shm", "/dev/pts", "/tmp", "/var/tmp"] {
        cannot(&format!("make `{place}`"), fs::create_dir_all(place))?;
    }
    for (tmp, place) in confinement.tmp_mounts() {
        cannot(&format!("mount {place}"), mount_bind_recursive(old(tmp), place))?;
        cannot(&format!("fix {place}"), sys::set_mount(Path::new(place), Mount::Write))?;
    }
    if let Some(home) = &confinement.home {
        cannot("write a list of users", write_users(confinement.user, home))?;
    }
    let terminals = mount("devpts", "/dev/pts", "devpts", MountFlags::NOSUID, Some(TERMINALS));
    cannot("mount /dev/pts", terminals)?;
    cannot("make `/dev/ptmx`", symlink("pts/ptmx", "/dev/ptmx"))?;
    fresh_mounts()?;
    cannot("put away the old root", unmount(OLD, UnmountFlags::DETACH))?;
    cannot("remove the place of the old root", fs::remove_dir(OLD))?;
    let fixed = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    cannot("fix the new root", mount_remount("/", fixed, c""))
}

/// What is granted, and how.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Grant {
    /// Of the system: links are followed, and made again.
    System,
    Read,
    Write,
}

/// Returns what is to be seen, a tree before what is in it.
fn granted(confinement: &Confinement) -> BTreeMap<PathBuf, Grant> {
    let files = &confinement.files;
    let is_own = |path: &&str| confinement.home.is_some() && *path == USERS;
    let system = [system::READ, system::WRITE].concat().into_iter();
    let system = system.filter(|path| files.system && !is_own(path));
    let system = system.map(|path| (PathBuf::from(path), Grant::System));
    let read = files.read.iter().map(|path| (path.clone(), Grant::Read));
    let write = files.write.iter().map(|path| (path.clone(), Grant::Write));
    system.chain(read).chain(write).collect()
}

/// Writes the list of users, passwd(5), with another home for the program's user.
fn write_users(user: Option<User>, home: &Path) -> io::Result<()> {
    let (uid, gid) = match user {
        Some(User { uid, gid }) => (uid, gid),
        None => (geteuid().as_raw(), getegid().as_raw()),
    };
    let users = fs::read(old(Path::new(USERS))).unwrap_or_default();
    let users = String::from_utf8_lossy(&users);
    let home = home.to_str().filter(|home| !home.contains([':', '\n']));
    let home = home.ok_or_else(|| io::Error::other("the home cannot stand in it"))?;
    let mut text = String::new();
    let mut is_known = false;
    for line in users.lines() {
        let mut fields: Vec<&str> = line.split(':').collect();
        if fields.len() == FIELDS && fields[2].parse() == Ok(uid) {
            fields[5] = home;
            is_known = true;
        }
        text.push_str(&fields.join(":"));
        text.push('\n');
    }
    if !is_known {
        text.push_str(&format!("user:x:{uid}:{gid}::{home}:/bin/sh\n"));
    }
    fs::create_dir_all("/etc")?;
    fs::write(USERS, text)
}

/// The processes and the shared memory of the program are its own.
fn fresh_mounts() -> Result<(), Trouble> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    cannot("mount /proc", mount("proc", "/proc", "proc", flags, None))?;
    cannot("mount /dev/shm", temporary("/dev/shm", SHARED_MEMORY))
}

fn temporary(place: &str, options: &std::ffi::CStr) -> rustix::io::Result<()> {
    mount("tmpfs", place, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(options))
}

/// A root directory that is being filled.
struct Room {
    /// Trees that are there, without links in their paths.
    exposed: BTreeSet<PathBuf>,
}

impl Room {
    /// Makes a path of the old root lead to the same in the new one. What is not there is left out.
    fn expose(&mut self, path: &Path, grant: Grant) -> io::Result<()> {
        let mut ahead: VecDeque<OsString> = parts(path).collect();
        let mut here = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = ahead.pop_front() {
            if part == ".." {
                here.pop();
                continue;
            }
            let next = here.join(&part);
            // These are our own, and so is what is in them.
            if next == Path::new("/proc") || next == Path::new("/dev/shm") {
                return Ok(());
            }
            let metadata = match fs::symlink_metadata(old(&next)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                metadata => metadata?,
            };
            let is_there = self.exposed.iter().any(|tree| next.starts_with(tree));
            if metadata.is_symlink() && grant != Grant::System {
                // Who may write there could make it lead anywhere.
                return Err(io::Error::other("there is a link on the way; grant where it leads"));
            }
            if metadata.is_symlink() {
                links += 1;
                if links > MAX_LINKS {
                    return Err(io::Error::other("too many links"));
                }
                let target = fs::read_link(old(&next))?;
                if !is_there && fs::symlink_metadata(&next).is_err() {
                    symlink(&target, &next)?;
                }
                if target.is_absolute() {
                    here = PathBuf::from("/");
                }
                for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                    ahead.push_front(part);
                }
                continue;
            }
            here = next;
            // What may be written in a tree that may be read is another mount.
            if is_there && !(ahead.is_empty() && grant == Grant::Write) {
                continue;
            }
            if is_there {
                return self.mount_again(&here);
            }
            if !ahead.is_empty() {
                match fs::create_dir(&here) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(error);
                    }
                    _ => continue,
                }
            }
            self.mount(&here, metadata.is_dir(), grant)?;
        }
        Ok(())
    }

    /// Mounts something anew that is in a tree which is there.
    fn mount_again(&mut self, place: &Path) -> io::Result<()> {
        mount_bind_recursive(old(place), place)?;
        sys::set_mount(place, Mount::Write)?;
        self.exposed.insert(place.to_owned());
        Ok(())
    }

    fn mount(&mut self, place: &Path, is_dir: bool, grant: Grant) -> io::Result<()> {
        if is_dir {
            fs::create_dir_all(place)?;
        } else {
            fs::File::create(place)?;
        }
        mount_bind_recursive(old(place), place)?;
        // A device can be written where its file cannot.
        let mount = if grant == Grant::Write { Mount::Write } else { Mount::Read };
        sys::set_mount(place, mount)?;
        self.exposed.insert(place.to_owned());
        Ok(())
    }
}

fn old(path: &Path) -> PathBuf {
    Path::new(OLD).join(path.strip_prefix("/").unwrap_or(path))
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(part) => Some(part.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}

fn cannot<T>(what: &str, result: Result<T, impl Into<io::Error>>) -> Result<T, Trouble> {
    result.map_err(|source| Trouble { what: what.to_owned(), source: source.into() })
}
