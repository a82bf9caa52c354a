//! Fixed limits of a run, which no manifest changes and more than one module needs.

/// The maximum number of WASI resources that a guest may hold at once.
pub(crate) const MAX_RESOURCES: usize = 1000;
/// The maximum number of random bytes that a guest may request at once.
pub(crate) const MAX_RANDOM_BYTES: u64 = 64 << 10;
/// The maximum number of bytes that a guest may pass to one call of the host.
pub(crate) const MAX_CALL_BYTES: usize = 16 << 20;
