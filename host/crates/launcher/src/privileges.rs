//! Gives up the capabilities of a process permanently, and changes its user.
//!
//! Root without capabilities still owns root's files. A daemon that runs as root should therefore name
//! another user for its programs.

use std::io;

use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_capabilities_secure_bits, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

/// A user and a group, by their ids.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct User {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
}

/// Empties the bounding set and sets the secure bits, so that a process never gains a capability by executing
/// a file, not even as root.
///
/// Does nothing if the process may not change its bounding set. In that case the layer `new-privileges` keeps
/// the process from gaining capabilities.
pub(crate) fn bound_capabilities() -> io::Result<()> {
    if !capabilities(None)?.effective.contains(CapabilitySet::SETPCAP) {
        return Ok(());
    }
    empty_bounding_set()?;
    let mut bits = CapabilitiesSecureBits::NO_ROOT;
    bits |= CapabilitiesSecureBits::NO_ROOT_LOCKED | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE;
    bits |= CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    Ok(set_capabilities_secure_bits(bits)?)
}

/// Removes every capability that this kernel knows from the bounding set.
fn empty_bounding_set() -> Result<(), Errno> {
    for number in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            // The kernel does not know this number, so it knows no higher number either.
            Err(Errno::INVAL) => return Ok(()),
            result => result?,
        }
    }
    Ok(())
}

/// Changes the user and the group of the calling process, and replaces its supplementary groups.
pub(crate) fn become_user(user: User, groups: &[u32]) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let groups: Vec<Gid> = groups.iter().map(|group| Gid::from_raw(*group)).collect();
    // These calls change only the calling thread. This process has only one thread.
    set_thread_groups(&groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// Gives up all capabilities of the calling process.
pub(crate) fn drop_capabilities() -> io::Result<()> {
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(())
}
