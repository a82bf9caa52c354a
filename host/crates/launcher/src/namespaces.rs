//! The namespaces of the program.
//!
//! Decides which namespaces are created and how a new user namespace knows the caller. Before it: the
//! outer process, which creates them; after it: the inner process, which runs in them.

use std::fs;

use rustix::process::{getegid, geteuid};
use rustix::thread::{CapabilitySet, capabilities};

use crate::error::LayerError;
use crate::privileges::User;

/// The user namespace in which the program runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum UserNamespace {
    /// The one in which the launcher was started.
    Inherited,
    /// A new one, with only this user and group. The kernel counts its processes separately.
    New(User),
}

impl UserNamespace {
    /// Returns the user namespace that creating other namespaces requires. A process without the
    /// privilege to create them needs a new user namespace, in which it has every privilege.
    pub(crate) fn needed() -> Self {
        let is_privileged =
            capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN));
        if is_privileged {
            return Self::Inherited;
        }
        Self::New(User { uid: geteuid().as_raw(), gid: getegid().as_raw() })
    }

    /// Returns the flags of clone(2) for this and the other namespaces.
    pub(crate) fn clone_flags(self) -> libc::c_int {
        let others = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC;
        match self {
            Self::Inherited => others,
            Self::New(_) => others | libc::CLONE_NEWUSER,
        }
    }

    /// Maps the user and group of a new user namespace to themselves. The caller is its first process.
    pub(crate) fn map_ids(self) -> Result<(), LayerError> {
        let Self::New(User { uid, gid }) = self else { return Ok(()) };
        let writes = [
            ("/proc/self/setgroups", "deny".to_owned()),
            ("/proc/self/uid_map", format!("{uid} {uid} 1")),
            ("/proc/self/gid_map", format!("{gid} {gid} 1")),
        ];
        for (file, text) in writes {
            fs::write(file, text).map_err(LayerError::of(format!("write `{file}`")))?;
        }
        Ok(())
    }
}
