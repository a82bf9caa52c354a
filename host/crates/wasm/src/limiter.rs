//! The memory limit of a run: the sum of all linear memories and tables of a component.
//!
//! wasmtime's own `StoreLimits` limits each memory separately, but a component can have several. This module
//! adds up their sizes, and wasmtime asks it before each growth.

use wasmtime::ResourceLimiter;

/// The size of a table element in the host's memory, in bytes. An element is a pointer.
const ELEMENT_BYTES: u64 = 8;

/// Counts the memory of a guest, and refuses to let it grow beyond its limit.
pub(crate) struct Limiter {
    pub(crate) allowed: u64,
    /// Memory that the guest holds now, in bytes. Memories never shrink, so this is also the most that the
    /// guest has held.
    pub(crate) held: u64,
    /// Memory that the guest would have held after the last refused growth, in bytes.
    pub(crate) refused: Option<u64>,
}

impl Limiter {
    pub(crate) fn new(allowed: u64) -> Self {
        Self { allowed, held: 0, refused: None }
    }

    fn grow(&mut self, current: usize, desired: usize, maximum: Option<usize>, unit: u64) -> bool {
        // The growth exceeds a maximum that the component itself declares, so wasmtime refuses it. It is
        // neither counted nor reported as exceeding the run's limit.
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
