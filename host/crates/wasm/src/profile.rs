//! The engine's profile: the wasmtime features that are enabled, and the size of the instance pool.
//!
//! The profile is small on purpose: no garbage collector, no threads, no component-model async. Most
//! of wasmtime's advisories of the last year are about features that are disabled here.

use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig};

/// The maximum size of one linear memory, in bytes. A manifest may not ask for more.
pub const MAX_MEMORY: u64 = 1 << 30;
/// The maximum number of core modules in a component. Rust needs 3 or 4, Python and JavaScript more.
pub(crate) const MAX_CORE_INSTANCES: u32 = 64;
/// The maximum number of linear memories of a component.
pub(crate) const MAX_MEMORIES: u32 = 4;
/// The maximum number of tables of a component.
pub(crate) const MAX_TABLES: u32 = 64;
/// The maximum number of elements of a table.
const TABLE_ELEMENTS: usize = 100_000;

/// How many bytes of a linear memory are zeroed and kept resident after a run; the rest is returned to
/// the system. The value fits the 64 KiB stack that the SDK's template asks for: the memory that most
/// tasks touch lies below it. A larger value slows down every run, because all of it is zeroed.
const KEEP_RESIDENT: usize = 128 << 10;

/// Returns the settings for this number of concurrent instances.
pub(crate) fn config(instances: u32) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .wasm_component_model(true)
        // wasmtime refuses a combination in which only some of these four are off.
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
    // `pagemap_scan` and protection keys stay off, which is the default: in this version the first can
    // leave swapped-out pages of the previous instance (fixed in 50.0.0), and the second has lost its
    // key before.
    pool
}
