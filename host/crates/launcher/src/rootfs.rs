//! A private root file system that contains only what was granted.
//!
//! Owns the mounts that the first process of the namespaces makes. Everything granted is mounted at the
//! path that it has outside, so that no path changes its meaning, and symbolic links on the way are
//! created again. Anything else does not exist there: no socket of a container engine or an agent,
//! whether or not this kernel's Landlock covers sockets. Before it: the inner process, in its own
//! namespaces; after it: the program's own layers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{CStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use rustix::fs::Mode;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change,
    mount_remount, unmount,
};
use rustix::process::{getegid, geteuid, pivot_root, umask};

use crate::confinement::Confinement;
use crate::error::{self, LayerError};
use crate::privileges::User;
use crate::sys::{self, MountAccess};
use crate::system;

/// The mount point of the new root until it becomes the root. It must exist on every machine.
const STAGING: &str = "/tmp";
/// The mount point of the old root until all mounts are done.
const OLD_ROOT: &str = "/.old";
/// The maximum number of symbolic links in one path, as in Linux itself, see path_resolution(7).
const MAX_LINKS: usize = 40;
/// The options of `/dev/shm`; all processes of a program share its size.
const SHARED_MEMORY: &CStr = c"mode=1777,size=256m";
/// The file of users, and the number of fields in a line of it.
const USERS: &str = "/etc/passwd";
const FIELDS: usize = 7;
/// The options of `/dev/pts`: private terminals, which every user there may create.
const TERMINALS: &CStr = c"newinstance,ptmxmode=0666,mode=620";

/// The root file system in which the program runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RootFilesystem {
    /// The one of the host, in which everything is visible.
    Host,
    /// A private one, which contains only what was granted.
    Private,
}

/// Builds the root file system, and returns which one the program has. The caller is the first process
/// of its namespaces.
pub(crate) fn build(confinement: &Confinement) -> Result<RootFilesystem, LayerError> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(LayerError::of("make mounts private"))?;
    if confinement.files.grants_everything() {
        // The root itself is granted, so only the file systems about processes are replaced.
        mount_proc_and_shm()?;
        return Ok(RootFilesystem::Host);
    }
    // The program must be able to enter the directories made here, whichever user it is.
    umask(Mode::from_raw_mode(0o022));
    enter_new_root()?;
    mount_grants(confinement)?;
    mount_own(confinement)?;
    leave_old_root()?;
    Ok(RootFilesystem::Private)
}

fn enter_new_root() -> Result<(), LayerError> {
    mount_tmpfs(STAGING, c"mode=755,size=4m").map_err(LayerError::of("mount the new root"))?;
    let put_old = format!("{STAGING}{OLD_ROOT}");
    fs::create_dir(&put_old).map_err(LayerError::of("create the directory of the old root"))?;
    pivot_root(STAGING, put_old.as_str()).map_err(LayerError::of("change the root"))?;
    std::env::set_current_dir("/").map_err(LayerError::of("enter the new root"))
}

fn mount_grants(confinement: &Confinement) -> Result<(), LayerError> {
    let mut tree = Tree { mounted: BTreeSet::new() };
    for (path, grant) in grants(confinement) {
        let what = format!("mount `{}`", path.display());
        tree.expose(&path, grant).map_err(LayerError::of(what))?;
    }
    Ok(())
}

/// Mounts everything that is the program's own and not the host's.
fn mount_own(confinement: &Confinement) -> Result<(), LayerError> {
    for place in ["/proc", "/dev/shm", "/dev/pts", "/tmp", "/var/tmp"] {
        fs::create_dir_all(place).map_err(LayerError::of(format!("create `{place}`")))?;
    }
    for (tmp, place) in confinement.tmp_mounts() {
        mount_bind_recursive(old(tmp), place)
            .map_err(LayerError::of(format!("mount `{place}`")))?;
        sys::restrict_mount(Path::new(place), MountAccess::Write)
            .map_err(LayerError::of(format!("restrict the mount `{place}`")))?;
    }
    if let Some(home) = &confinement.home {
        write_users(confinement.user, home).map_err(LayerError::of("write `/etc/passwd`"))?;
    }
    mount("devpts", "/dev/pts", "devpts", MountFlags::NOSUID, Some(TERMINALS))
        .map_err(LayerError::of("mount `/dev/pts`"))?;
    symlink("pts/ptmx", "/dev/ptmx").map_err(LayerError::of("create `/dev/ptmx`"))?;
    mount_proc_and_shm()
}

fn leave_old_root() -> Result<(), LayerError> {
    unmount(OLD_ROOT, UnmountFlags::DETACH).map_err(LayerError::of("unmount the old root"))?;
    fs::remove_dir(OLD_ROOT).map_err(LayerError::of("remove the directory of the old root"))?;
    let fixed = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    mount_remount("/", fixed, c"").map_err(LayerError::of("make the new root read-only"))
}

/// The kind of a grant.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Grant {
    /// A path of the system: symbolic links are followed, and created again.
    System,
    Read,
    Write,
}

/// Returns all grants, each tree before the paths in it.
fn grants(confinement: &Confinement) -> BTreeMap<PathBuf, Grant> {
    let files = &confinement.files;
    let is_replaced = |path: &&str| confinement.home.is_some() && *path == USERS;
    let system = [system::READ, system::WRITE].concat().into_iter();
    let system = system.filter(|path| files.system && !is_replaced(path));
    let system = system.map(|path| (PathBuf::from(path), Grant::System));
    let read = files.read.iter().map(|path| (path.clone(), Grant::Read));
    let write = files.write.iter().map(|path| (path.clone(), Grant::Write));
    system.chain(read).chain(write).collect()
}

/// Writes the file of users, passwd(5), with this home directory for the program's user.
fn write_users(user: Option<User>, home: &Path) -> io::Result<()> {
    let User { uid, gid } =
        user.unwrap_or_else(|| User { uid: geteuid().as_raw(), gid: getegid().as_raw() });
    let users = fs::read(old(Path::new(USERS))).unwrap_or_default();
    let users = String::from_utf8_lossy(&users);
    let home = home.to_str().filter(|home| !home.contains([':', '\n'])).ok_or_else(|| {
        io::Error::other("the home directory contains a colon or a line break, or is not UTF-8")
    })?;
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

/// Mounts `/proc` and `/dev/shm`, which show only the program's own processes and shared memory.
fn mount_proc_and_shm() -> Result<(), LayerError> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", flags, None).map_err(LayerError::of("mount `/proc`"))?;
    mount_tmpfs("/dev/shm", SHARED_MEMORY).map_err(LayerError::of("mount `/dev/shm`"))
}

fn mount_tmpfs(place: &str, options: &CStr) -> rustix::io::Result<()> {
    mount("tmpfs", place, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(options))
}

/// A root file system that is being filled.
struct Tree {
    /// The paths that are mounted, free of symbolic links.
    mounted: BTreeSet<PathBuf>,
}

impl Tree {
    /// Makes a path mean the same in the new root as in the old one. A path that does not exist is
    /// skipped.
    fn expose(&mut self, path: &Path, grant: Grant) -> io::Result<()> {
        let mut remaining: VecDeque<OsString> = components(path).collect();
        let mut here = PathBuf::from("/");
        let mut links = 0;
        while let Some(component) = remaining.pop_front() {
            if component == ".." {
                here.pop();
                continue;
            }
            let next = here.join(&component);
            // The program has its own mounts there.
            if next == Path::new("/proc") || next == Path::new("/dev/shm") {
                return Ok(());
            }
            let metadata = match fs::symlink_metadata(old(&next)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                metadata => metadata?,
            };
            if metadata.is_symlink() {
                links += 1;
                let target = self.copy_link(&next, grant, links)?;
                if target.is_absolute() {
                    here = PathBuf::from("/");
                }
                for component in components(&target).collect::<Vec<_>>().into_iter().rev() {
                    remaining.push_front(component);
                }
                continue;
            }
            here = next;
            if remaining.is_empty() {
                self.expose_end(&here, metadata.is_dir(), grant)?;
            } else if !self.is_mounted(&here) {
                match fs::create_dir(&here) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (),
                    created => created?,
                }
            }
        }
        Ok(())
    }

    /// Creates a symbolic link of the old root in the new one, and returns its target. `links` is the
    /// number of links on the path so far.
    fn copy_link(&self, place: &Path, grant: Grant, links: usize) -> io::Result<PathBuf> {
        if grant != Grant::System {
            // Anyone who may write there could redirect it.
            return Err(error::symlink_in_grant());
        }
        if links > MAX_LINKS {
            return Err(io::Error::other("too many symbolic links"));
        }
        let target = fs::read_link(old(place))?;
        if !self.is_mounted(place) && fs::symlink_metadata(place).is_err() {
            symlink(&target, place)?;
        }
        Ok(target)
    }

    /// Mounts the end of a granted path, unless it is part of a mounted tree already.
    fn expose_end(&mut self, place: &Path, is_dir: bool, grant: Grant) -> io::Result<()> {
        // A device can be written although its file is read-only.
        let access = if grant == Grant::Write { MountAccess::Write } else { MountAccess::Read };
        if self.is_mounted(place) {
            // A writable path in a read-only tree needs a mount of its own.
            return if grant == Grant::Write { self.bind(place, access) } else { Ok(()) };
        }
        if is_dir {
            fs::create_dir_all(place)?;
        } else {
            fs::File::create(place)?;
        }
        self.bind(place, access)
    }

    fn bind(&mut self, place: &Path, access: MountAccess) -> io::Result<()> {
        mount_bind_recursive(old(place), place)?;
        sys::restrict_mount(place, access)?;
        self.mounted.insert(place.to_owned());
        Ok(())
    }

    fn is_mounted(&self, place: &Path) -> bool {
        self.mounted.iter().any(|tree| place.starts_with(tree))
    }
}

/// Returns the path in the old root.
fn old(path: &Path) -> PathBuf {
    Path::new(OLD_ROOT).join(path.strip_prefix("/").unwrap_or(path))
}

fn components(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}
