//! The namespaces of the program.
//!
//! This module decides which namespaces are created, and maps the user in a new user namespace. The outer
//! process (see `supervisor`) creates the namespaces, and the inner process runs in them.

use std::fs;

use rustix::process::{getegid, geteuid};
use rustix::thread::{CapabilitySet, capabilities};

use crate::error::LayerError;
use crate::privileges::User;

/// The user namespace in which the program runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum UserNamespace {
    /// The user namespace of the launcher.
    Inherited,
    /// A new user namespace that contains only this user and group. The kernel counts the processes in the
    /// namespace separately.
    New(User),
}

impl UserNamespace {
    /// Returns the user namespace in which this process may create other namespaces. A process without
    /// CAP_SYS_ADMIN needs a new user namespace, in which it has all capabilities.
    pub(crate) fn needed() -> Self {
        let is_privileged =
            capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN));
        if is_privileged {
            return Self::Inherited;
        }
        Self::New(User { uid: geteuid().as_raw(), gid: getegid().as_raw() })
    }

    /// Returns the flags of clone(2) that create this user namespace and the other namespaces.
    pub(crate) fn clone_flags(self) -> libc::c_int {
        let others = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC;
        match self {
            Self::Inherited => others,
            Self::New(_) => others | libc::CLONE_NEWUSER,
        }
    }

    /// Maps the user and the group in a new user namespace to the same ids outside. The caller must be the
    /// first process of the namespace.
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
