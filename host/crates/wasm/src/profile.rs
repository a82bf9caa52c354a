//! The engine's profile: the enabled wasmtime features and the size of the instance pool.
//!
//! Few features are enabled: there is no garbage collector, there are no threads and no component-model
//! async. Most security advisories for wasmtime of the last year are about features that are disabled here.

use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig};

/// The maximum size of one linear memory, in bytes. A manifest may not set a higher limit.
pub const MAX_MEMORY: u64 = 1 << 30;
/// The maximum number of core modules in a component. Rust needs 3 or 4; Python and JavaScript need more.
pub(crate) const MAX_CORE_INSTANCES: u32 = 64;
/// The maximum number of linear memories in a component.
pub(crate) const MAX_MEMORIES: u32 = 4;
/// The maximum number of tables in a component.
pub(crate) const MAX_TABLES: u32 = 64;
/// The maximum number of elements in a table.
const TABLE_ELEMENTS: usize = 100_000;

/// Number of bytes at the start of a linear memory that are zeroed and stay resident after a run. The rest is
/// returned to the system. The SDK's template sets a stack of 64 KiB, so most tasks use no more memory than
/// this. A larger value would make every run slower, because all these bytes are zeroed.
const KEEP_RESIDENT: usize = 128 << 10;

/// Returns the engine's settings for this number of concurrent instances.
pub(crate) fn config(instances: u32) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .wasm_component_model(true)
        // wasmtime accepts these four settings only if all of them are off.
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
    // `pagemap_scan` and protection keys stay off, which is the default. With `pagemap_scan`, this version of
    // wasmtime can leave swapped-out pages of the previous instance in a slot (fixed in 50.0.0). With
    // protection keys, an earlier version of wasmtime could lose the key.
    pool
}
