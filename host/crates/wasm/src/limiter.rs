//! The memory limit of a run: all linear memories and tables of a component together.
//!
//! wasmtime's own `StoreLimits` checks each memory alone, and a component may have many.

use wasmtime::ResourceLimiter;

/// The size of a table element on the host, in bytes: a pointer.
const ELEMENT_BYTES: u64 = 8;

/// Counts the memory of a guest, and refuses growth beyond its limit.
pub(crate) struct Limiter {
    pub(crate) allowed: u64,
    /// The memory that the guest holds. A memory never shrinks, so this is also the maximum.
    pub(crate) held: u64,
    /// The memory that the guest would hold after the last growth that was refused.
    pub(crate) refused: Option<u64>,
}

impl Limiter {
    pub(crate) fn new(allowed: u64) -> Self {
        Self { allowed, held: 0, refused: None }
    }

    fn grow(&mut self, current: usize, desired: usize, maximum: Option<usize>, unit: u64) -> bool {
        // The memory's own maximum refuses this growth, so it neither counts nor exceeds our limit.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return false;
        }
        let more = (desired.saturating_sub(current) as u64).saturating_mul(unit);
        let wanted = self.held.saturating_add(more);
        if wanted > self.allowed {
            self.refused = Some(wanted);
            return false;
        }
        self.held = wanted;
        true
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.grow(current, desired, maximum, 1))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.grow(current, desired, maximum, ELEMENT_BYTES))
    }
}
