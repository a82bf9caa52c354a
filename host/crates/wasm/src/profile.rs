//! The engine's profile: which of wasmtime's features are on, and how much it sets aside.
//!
//! Small on purpose: no garbage collector, no threads, no component-model async. Most of wasmtime's
//! advisories of the last year are about what is switched off here.

use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig};

/// The most memory that one linear memory may have, in bytes; a manifest may not ask for more.
pub const MAX_MEMORY: u64 = 1 << 30;
/// The most modules that a component may have inside. Rust needs 3 or 4, Python and JavaScript more.
pub(crate) const MAX_CORE_INSTANCES: u32 = 64;
/// The most linear memories that a component may have.
pub(crate) const MAX_MEMORIES: u32 = 4;
/// The most tables that a component may have.
pub(crate) const MAX_TABLES: u32 = 64;
/// The most elements of a table.
const TABLE_ELEMENTS: usize = 100_000;

/// How much of a linear memory is cleared by writing zeros, in bytes, when its instance is gone; the
/// rest is given back to the system. Belongs to the 64 KiB of stack that the SDK's template asks for:
/// then all that most tasks touch lies below it. A larger value costs every run, since all of it is
/// written.
const KEEP_RESIDENT: usize = 128 << 10;

/// Returns the settings for so many instances at a time.
pub(crate) fn config(instances: u32) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .wasm_component_model(true)
        // All four, or wasmtime refuses the combination.
        .wasm_gc(false)
        .wasm_function_references(false)
        .wasm_exceptions(false)
        .gc_support(false)
        .wasm_threads(false)
        .concurrency_support(false)
        .max_wasm_stack(512 << 10)
        .async_stack_size(1 << 20)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool(instances)));
    config
}

fn pool(instances: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(MAX_CORE_INSTANCES))
        .total_memories(instances.saturating_mul(MAX_MEMORIES))
        .total_tables(instances.saturating_mul(MAX_TABLES))
        .total_stacks(instances)
        .max_core_instances_per_component(MAX_CORE_INSTANCES)
        .max_memories_per_component(MAX_MEMORIES)
        .max_tables_per_component(MAX_TABLES)
        .table_elements(TABLE_ELEMENTS)
        .max_memory_size(usize::try_from(MAX_MEMORY).unwrap_or(usize::MAX))
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(16 << 10);
    // `pagemap_scan` and protection keys stay off, their default: on this version the first can leave
    // swapped pages of the last tenant (fixed in 50.0.0), the second has lost its key before.
    pool
}
