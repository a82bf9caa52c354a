//! Limits of a run that no manifest can change and that several modules use.

/// The maximum number of WASI resources that a guest may hold at the same time.
pub(crate) const MAX_RESOURCES: usize = 1000;
/// The maximum number of random bytes that a guest may request in one call.
pub(crate) const MAX_RANDOM_BYTES: u64 = 64 << 10;
/// The maximum number of bytes that a guest may pass to the host in one call.
pub(crate) const MAX_CALL_BYTES: usize = 16 << 20;
