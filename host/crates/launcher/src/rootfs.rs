//! Builds a private root file system that contains only granted paths.
//!
//! Each granted path is mounted at the same path as on the host, so that all paths stay valid. Symbolic links
//! in granted system paths are created again. No other files of the host are visible. In particular, sockets
//! of container engines and agents are missing, even if the kernel's Landlock cannot restrict sockets.
//!
//! The inner process (see `supervisor`) builds the root file system in its own namespaces. The program's
//! process then applies its layers there.

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

/// The temporary mount point of the new root. The directory must exist on every machine.
const STAGING: &str = "/tmp";
/// The mount point of the old root. The old root is unmounted after all mounts are done.
const OLD_ROOT: &str = "/.old";
/// The maximum number of symbolic links in one path, which is also Linux's limit (path_resolution(7)).
const MAX_LINKS: usize = 40;
/// The mount options of `/dev/shm`. All processes of the program share this space.
const SHARED_MEMORY: &CStr = c"mode=1777,size=256m";
/// The file with the users of the machine.
const USERS: &str = "/etc/passwd";
/// The number of fields in a line of `/etc/passwd`.
const FIELDS: usize = 7;
/// The mount options of `/dev/pts`: a private set of pseudo-terminals, which every user may create.
const TERMINALS: &CStr = c"newinstance,ptmxmode=0666,mode=620";

/// The root file system in which the program runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RootFilesystem {
    /// The root file system of the host, in which all files are visible.
    Host,
    /// A private root file system, which contains only granted paths.
    Private,
}

/// Builds the root file system of the program. Returns whether it is private or that of the host. The caller
/// must be the first process of its namespaces.
pub(crate) fn build(confinement: &Confinement) -> Result<RootFilesystem, LayerError> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(LayerError::of("make mounts private"))?;
    if confinement.files.grants_everything() {
        // The whole file system is granted. Only `/proc` and `/dev/shm` must be private to the program.
        mount_proc_and_shm()?;
        return Ok(RootFilesystem::Host);
    }
    // The program may run as another user, who must be able to enter the directories that are created here.
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

/// Mounts the private parts of the root file system: temporary directories, terminals, processes and shared
/// memory. Writes `/etc/passwd` if the confinement sets a home directory.
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
    /// A path of the system. Symbolic links in the path are followed, and created again.
    System,
    Read,
    Write,
}

/// Returns all granted paths with the kind of their grants. A directory comes before the paths in it.
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

/// Writes a copy of `/etc/passwd`, in which the program's user has this home directory (passwd(5)).
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

/// Mounts a private `/proc` and `/dev/shm`, which contain only the program's processes and shared memory.
///
/// `/proc` is read-only. Otherwise a program that runs as root could change the modes of files such as
/// `/proc/cpuinfo`, even without capabilities and for the whole machine: the kernel keeps one mode for all
/// mounts (`proc_notify_change` in fs/proc/generic.c).
fn mount_proc_and_shm() -> Result<(), LayerError> {
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", flags, None).map_err(LayerError::of("mount `/proc`"))?;
    mount_tmpfs("/dev/shm", SHARED_MEMORY).map_err(LayerError::of("mount `/dev/shm`"))
}

fn mount_tmpfs(place: &str, options: &CStr) -> rustix::io::Result<()> {
    mount("tmpfs", place, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(options))
}

/// The new root file system while the grants are mounted.
struct Tree {
    /// The mounted paths, with symbolic links resolved.
    mounted: BTreeSet<PathBuf>,
}

impl Tree {
    /// Creates a path of the old root in the new root: its directories, its symbolic links, and a mount of
    /// the file or directory at its end. A missing path is skipped.
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
            // `/proc` and `/dev/shm` are mounted privately later, so nothing is mounted there.
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

    /// Copies a symbolic link from the old root to the new root, and returns its target. `links` is the
    /// number of links found in the path so far.
    fn copy_link(&self, place: &Path, grant: Grant, links: usize) -> io::Result<PathBuf> {
        if grant != Grant::System {
            // Anyone who may replace the link could redirect the grant.
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

    /// Mounts the file or directory at the end of a granted path. A path in an already mounted tree is not
    /// mounted again, unless the grant allows writing.
    fn expose_end(&mut self, place: &Path, is_dir: bool, grant: Grant) -> io::Result<()> {
        // A read-only mount is sufficient for a device, because it does not prevent writing to the device.
        let access = if grant == Grant::Write { MountAccess::Write } else { MountAccess::Read };
        if self.is_mounted(place) {
            // The mounted tree may be read-only, so a path that may be written gets its own mount.
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

/// Returns the path at which the old root contains `path`.
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
