//! Capabilities and the user.
//!
//! Decides how a process gives them up for good. Root without capabilities still owns root's files, so a
//! daemon that runs as root should name a user for its programs. Before it: the pipeline; after it: the
//! kernel.

use std::io;

use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_capabilities_secure_bits, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

/// A user and a group, by their numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

/// Empties the bounding set and sets the secure bits, so that executing a file never gives a
/// capability, not even to root.
///
/// Does nothing if the process may not change its own capabilities. Then no-new-privileges keeps files
/// from giving any.
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
            // The first number that is not a capability of this kernel.
            Err(Errno::INVAL) => return Ok(()),
            result => result?,
        }
    }
    Ok(())
}

/// Becomes the user, with its own group and no supplementary groups.
pub(crate) fn become_user(user: User) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    // These calls change one thread, and this process has only one.
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// Gives up all capabilities that the process holds.
pub(crate) fn drop_capabilities() -> io::Result<()> {
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(())
}
