//! Restricts files, TCP ports, signals and sockets with Landlock.
//!
//! One Landlock ruleset contains all restrictions. The restriction of files needs ABI 3 (Linux 6.2), because
//! earlier ABIs let a program truncate a file that it may not write. A private root file system contains only granted
//! files, and mounts those that may not be written read-only, so ABI 1 (Linux 5.13) is enough there. Ports need ABI 4 (Linux 6.7). Signals
//! and abstract sockets need ABI 6 (Linux 6.12), and sockets in the file system need ABI 9 (Linux 7.1); see
//! landlock(7). A feature that the kernel lacks is always reported.
//!
//! Landlock checks a port when a socket is connected or bound. When a program calls `listen` on an unbound
//! TCP socket, the socket gets a random port without a check. A filter of system calls cannot prevent this.
//! The filter only sees the number of the file descriptor, and must allow `listen` for sockets in the file
//! system, on which ssh shares its connections.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ::landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, NetPort,
    PathBeneath, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope,
};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use crate::confinement::Confinement;
use crate::error::{self, LayerError};
use crate::layer::Layer;
use crate::report::LayerState;
use crate::rootfs::RootFilesystem;
use crate::system;

/// The newest Landlock ABI that this module uses. The access rights of newer ABIs were not reviewed.
const REVIEWED: ABI = ABI::V9;

impl From<RulesetError> for LayerError {
    fn from(error: RulesetError) -> Self {
        Self { what: "confine files".to_owned(), source: io::Error::other(error) }
    }
}

/// Applies the Landlock ruleset to the calling thread. Returns each layer with its state and a detail.
pub(crate) fn confine(
    confinement: &Confinement,
    root: RootFilesystem,
) -> Result<Vec<(Layer, LayerState, String)>, LayerError> {
    let max_abi = confinement.landlock_abi.map_or(i32::MAX, i32::from);
    let is_anything_protected = !confinement.files.grants_everything();
    let least = match root {
        RootFilesystem::Host if is_anything_protected => ABI::V3,
        RootFilesystem::Host | RootFilesystem::Private => ABI::V1,
    };
    let abi = REVIEWED.min(ABI::from(max_abi)).max(least);
    let ruleset = create_ruleset(confinement, abi, least)?;
    let ruleset = allow_files(ruleset, confinement, root, abi)?;
    let ruleset = allow_ports(ruleset, confinement, abi)?;
    let status = ruleset.restrict_self()?;
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err(unsupported(least));
    }
    Ok(layer_states(confinement, effective_abi(&status).min(max_abi), least))
}

/// Creates a ruleset without rules, which denies all kinds of access that it handles. The ruleset does not
/// handle ports and scopes if their layers were left out.
fn create_ruleset(
    confinement: &Confinement,
    abi: ABI,
    least: ABI,
) -> Result<RulesetCreated, LayerError> {
    let strict = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let mut ruleset =
        strict.handle_access(AccessFs::from_all(least)).map_err(|_| unsupported(least))?;
    ruleset = ruleset
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?;
    if handles_ports(confinement, abi) {
        ruleset = ruleset.handle_access(AccessNet::from_all(ABI::V4))?;
    }
    if confinement.wants(Layer::Scopes) && abi >= ABI::V6 {
        ruleset = ruleset.scope(Scope::from_all(ABI::V6))?;
    }
    Ok(ruleset.create()?)
}

fn handles_ports(confinement: &Confinement, abi: ABI) -> bool {
    confinement.wants(Layer::Tcp) && abi >= ABI::V4
}

fn allow_files(
    mut ruleset: RulesetCreated,
    confinement: &Confinement,
    root: RootFilesystem,
    abi: ABI,
) -> Result<RulesetCreated, LayerError> {
    let (read, write) = (AccessFs::from_read(abi), AccessFs::from_all(abi));
    let is_private = root == RootFilesystem::Private;
    if confinement.files.system {
        let private = if is_private { system::PRIVATE_WRITE } else { &[] };
        for (paths, rights) in [(system::READ, read), (system::WRITE, write), (private, write)] {
            for path in paths.iter().map(Path::new).filter(|path| path.exists()) {
                ruleset = allow(ruleset, path, rights)?;
            }
        }
    }
    for (_, place) in confinement.tmp_mounts().into_iter().filter(|_| is_private) {
        ruleset = allow(ruleset, Path::new(place), write)?;
    }
    for (paths, rights) in [(&confinement.files.read, read), (&confinement.files.write, write)] {
        for path in paths {
            ruleset = allow_named(ruleset, path, rights)?;
        }
    }
    Ok(ruleset)
}

fn allow_ports(
    mut ruleset: RulesetCreated,
    confinement: &Confinement,
    abi: ABI,
) -> Result<RulesetCreated, LayerError> {
    if handles_ports(confinement, abi) {
        for &port in &confinement.tcp {
            ruleset = ruleset.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
        }
    }
    Ok(ruleset)
}

fn effective_abi(status: &RestrictionStatus) -> i32 {
    match status.landlock {
        LandlockStatus::Available { effective_abi, kernel_abi } => {
            kernel_abi.unwrap_or(effective_abi as i32)
        }
        _ => 0,
    }
}

/// Returns the state of each layer under this ABI, with a detail.
fn layer_states(
    confinement: &Confinement,
    abi: i32,
    least: ABI,
) -> Vec<(Layer, LayerState, String)> {
    let layers =
        [(Layer::Files, least as i32), (Layer::Tcp, 4), (Layer::Scopes, 6), (Layer::Sockets, 9)];
    let state = |(layer, needed)| {
        if !confinement.wants(layer) {
            (layer, LayerState::Off, "left out".to_owned())
        } else if abi >= needed {
            (layer, LayerState::Active, format!("Landlock ABI {abi}"))
        } else {
            (layer, LayerState::Degraded, format!("Landlock ABI {abi}, needs ABI {needed}"))
        }
    };
    layers.map(state).to_vec()
}

fn unsupported(least: ABI) -> LayerError {
    let kernel = if least == ABI::V1 { "5.13" } else { "6.2" };
    let reason = format!("the kernel must be Linux {kernel} or later, with Landlock enabled");
    LayerError { what: "confine files".to_owned(), source: io::Error::other(reason) }
}

fn cannot_grant<E: Into<io::Error>>(path: &Path) -> impl FnOnce(E) -> LayerError + use<E> {
    LayerError::of(format!("grant `{}`", path.display()))
}

/// Allows access to a path of the system. Symbolic links are followed.
fn allow(
    ruleset: RulesetCreated,
    path: &Path,
    rights: BitFlags<AccessFs>,
) -> Result<RulesetCreated, LayerError> {
    let opened = File::options().read(true).custom_flags(libc::O_PATH).open(path);
    allow_opened(ruleset, path, &opened.map_err(cannot_grant(path))?, rights)
}

/// Allows access to a path from `--read` or `--write`. A path that contains a symbolic link is refused,
/// because anyone who may replace the link could redirect the grant.
fn allow_named(
    ruleset: RulesetCreated,
    path: &Path,
    rights: BitFlags<AccessFs>,
) -> Result<RulesetCreated, LayerError> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let opened = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS);
    let descriptor = opened
        .map_err(|error| match error {
            Errno::LOOP => error::symlink_in_grant(),
            error => error.into(),
        })
        .map_err(cannot_grant(path))?;
    allow_opened(ruleset, path, &File::from(descriptor), rights)
}

fn allow_opened(
    ruleset: RulesetCreated,
    path: &Path,
    descriptor: &File,
    rights: BitFlags<AccessFs>,
) -> Result<RulesetCreated, LayerError> {
    let is_dir = descriptor.metadata().map_err(cannot_grant(path))?.is_dir();
    // The kernel refuses a rule for a file if the rule contains rights that only directories have.
    let rights = if is_dir { rights } else { rights & AccessFs::from_file(REVIEWED) };
    Ok(ruleset.add_rule(PathBeneath::new(descriptor, rights))?)
}
