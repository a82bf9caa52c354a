//! Files, TCP ports, signals and sockets, by Landlock.
//!
//! Owns one ruleset for all of them. Files need ABI 3 (Linux 6.2), since before it a file that may not
//! be written could still be truncated; ports need ABI 4 (6.7), scopes 6 (6.12), and sockets in the
//! file system 9 (7.1), see landlock(7). What a kernel lacks is reported, never skipped in silence.
//!
//! Ports are looked at where a socket is connected and where it is bound. `listen` on one that was not
//! bound gives it a port by chance and asks nobody, and a filter of system calls sees but the number of a
//! descriptor, which may as well be a socket in the file system, as ssh has to share a connection.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ::landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, NetPort,
    PathBeneath, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope,
};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

use crate::confinement::Confinement;
use crate::layer::{Held, Layer};
use crate::system;

/// The newest ABI whose rights we have thought about.
const KNOWN: ABI = ABI::V9;

/// Why files cannot be confined.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The kernel has no Landlock, or one too old.
    Unsupported,
    /// A path that was granted by name.
    Path(PathBuf, io::Error),
    Ruleset(RulesetError),
}

impl From<RulesetError> for Trouble {
    fn from(error: RulesetError) -> Self {
        Self::Ruleset(error)
    }
}

/// Confines the calling thread. Returns what became of each layer.
pub(crate) fn confine(
    confinement: &Confinement,
    in_room: bool,
    wants: impl Fn(Layer) -> bool,
) -> Result<Vec<(Layer, Held, String)>, Trouble> {
    let Confinement { files, tcp: ports, .. } = confinement;
    let newest = confinement.landlock_abi.map_or(i32::MAX, i32::from);
    let known = KNOWN.min(ABI::from(newest)).max(ABI::V3);
    // What is not asked for cannot hold.
    let tcp = wants(Layer::Tcp) && known >= ABI::V4;
    let scopes = wants(Layer::Scopes) && known >= ABI::V6;
    // Handled, a right is denied wherever no rule gives it.
    let mut ruleset =
        strictly().handle_access(AccessFs::from_all(ABI::V3)).map_err(|_| Trouble::Unsupported)?;
    ruleset = ruleset
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(known))?;
    if tcp {
        ruleset = ruleset.handle_access(AccessNet::from_all(ABI::V4))?;
    }
    if scopes {
        ruleset = ruleset.scope(Scope::from_all(ABI::V6))?;
    }
    let mut ruleset = ruleset.create()?;
    let system =
        |paths: &'static [&'static str]| paths.iter().map(Path::new).filter(|_| files.system);
    let own = if in_room { system::OWN_WRITE } else { &[] };
    for (paths, rights) in [
        (system(system::READ).collect::<Vec<_>>(), AccessFs::from_read(known)),
        (system(system::WRITE).collect(), AccessFs::from_all(known)),
        (system(own).collect(), AccessFs::from_all(known)),
    ] {
        for path in paths.into_iter().filter(|path| path.exists()) {
            ruleset = allow(ruleset, path, rights)?;
        }
    }
    for (_, place) in confinement.tmp_mounts().into_iter().filter(|_| in_room) {
        ruleset = allow(ruleset, Path::new(place), AccessFs::from_all(known))?;
    }
    for path in &files.read {
        ruleset = allow_named(ruleset, path, AccessFs::from_read(known))?;
    }
    for path in &files.write {
        ruleset = allow_named(ruleset, path, AccessFs::from_all(known))?;
    }
    if tcp {
        for &port in ports {
            ruleset = ruleset.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
        }
    }
    let status = ruleset.restrict_self()?;
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err(Trouble::Unsupported);
    }
    let abi = match status.landlock {
        LandlockStatus::Available { effective_abi, kernel_abi } => {
            kernel_abi.unwrap_or(effective_abi as i32)
        }
        _ => 0,
    }
    .min(newest);
    let by_abi = |layer, is_wanted, needed: i32| match (is_wanted, abi >= needed) {
        (false, _) => (layer, Held::Off, "not wanted".to_owned()),
        (true, true) => (layer, Held::Yes, format!("Landlock ABI {abi}")),
        (true, false) => (layer, Held::No, format!("Landlock ABI {abi}, it needs {needed}")),
    };
    Ok(vec![
        by_abi(Layer::Files, true, 3),
        by_abi(Layer::Tcp, wants(Layer::Tcp), 4),
        by_abi(Layer::Scopes, wants(Layer::Scopes), 6),
        by_abi(Layer::Sockets, wants(Layer::Sockets), 9),
    ])
}

fn strictly() -> Ruleset {
    Ruleset::default().set_compatibility(CompatLevel::HardRequirement)
}

/// Allows something of the system, wherever links lead.
fn allow(
    ruleset: RulesetCreated,
    path: &Path,
    rights: BitFlags<AccessFs>,
) -> Result<RulesetCreated, Trouble> {
    let opened = File::options().read(true).custom_flags(libc::O_PATH).open(path);
    let descriptor = opened.map_err(|error| Trouble::Path(path.to_owned(), error))?;
    allow_opened(ruleset, path, &descriptor, rights)
}

/// Allows what was granted by name. A link on the way would make it what whoever may write there
/// likes.
fn allow_named(
    ruleset: RulesetCreated,
    path: &Path,
    rights: BitFlags<AccessFs>,
) -> Result<RulesetCreated, Trouble> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let opened = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS);
    let descriptor = opened.map_err(|error| {
        let is_link = error == rustix::io::Errno::LOOP;
        let link = || io::Error::other("there is a link on the way; grant where it leads");
        Trouble::Path(path.to_owned(), if is_link { link() } else { error.into() })
    })?;
    allow_opened(ruleset, path, &File::from(descriptor), rights)
}

fn allow_opened(
    ruleset: RulesetCreated,
    path: &Path,
    descriptor: &File,
    rights: BitFlags<AccessFs>,
) -> Result<RulesetCreated, Trouble> {
    let metadata = descriptor.metadata();
    let is_dir = metadata.map_err(|error| Trouble::Path(path.to_owned(), error))?.is_dir();
    // A rule for a file must not have rights that only a directory has.
    let rights = if is_dir { rights } else { rights & AccessFs::from_file(KNOWN) };
    Ok(ruleset.add_rule(PathBeneath::new(descriptor, rights))?)
}
