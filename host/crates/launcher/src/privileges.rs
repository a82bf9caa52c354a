//! Capabilities and the user.
//!
//! Owns how they are given up for good. Root without capabilities is still the owner of root's files,
//! so a daemon that runs as root should name a user for its programs.

use std::io;

use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities,
    clear_ambient_capability_set, set_capabilities, set_capabilities_secure_bits,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use crate::sys;

/// A user to become.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

/// Takes every capability out of reach: executing a file will give none, not to root either.
///
/// Nothing is to be done, and nothing could be, by who may not change its own capabilities: then
/// no-new-privileges is what keeps a file from giving any.
pub(crate) fn bound_capabilities() -> io::Result<()> {
    if !capabilities(None)?.effective.contains(CapabilitySet::SETPCAP) {
        return Ok(());
    }
    sys::empty_bounding_set()?;
    let mut bits = CapabilitiesSecureBits::NO_ROOT;
    bits |= CapabilitiesSecureBits::NO_ROOT_LOCKED | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE;
    bits |= CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    Ok(set_capabilities_secure_bits(bits)?)
}

/// Becomes the user, with no other group than its own.
pub(crate) fn become_user(user: User) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    // Calls for one thread: this process has one.
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// Gives up what capabilities there are.
pub(crate) fn drop_capabilities() -> io::Result<()> {
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(())
}
