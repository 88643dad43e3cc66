//! How wasmtime is set up. The host and the compiling child must agree on every flag that changes code, so both call
//! [`config`], and the compatibility hash of what it gives names the cache's files.

use std::hash::{Hash, Hasher};

use wasmtime::{
    Config, Enabled, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, WasmFeatures,
};

use crate::config::PagemapScan;
use crate::limits;

/// What the pool must hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pool {
    pub(crate) permits: usize,
    pub(crate) pagemap_scan: PagemapScan,
}

/// The configuration; without a pool for the compiling child.
pub(crate) fn config(pool: Option<Pool>) -> Config {
    let mut config = Config::new();
    // What a guest may be made of: WebAssembly 2.0 with SIMD, and components of WASI 0.2.
    config.wasm_features(WasmFeatures::THREADS | WasmFeatures::GC | WasmFeatures::MEMORY64, false);
    config.wasm_component_model(true);
    config.concurrency_support(false);
    // The same result on every machine.
    config.cranelift_nan_canonicalization(true);
    config.wasm_relaxed_simd(true);
    config.relaxed_simd_deterministic(true);
    // Interruption and bounds.
    config.epoch_interruption(true);
    config.max_wasm_stack(limits::STACK_BYTES);
    config.memory_reservation(limits::MEMORY_BYTES as u64);
    config.memory_may_move(false);
    config.cranelift_opt_level(OptLevel::Speed);
    if let Some(pool) = pool {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pooling(pool)));
    }
    config
}

fn pooling(pool: Pool) -> PoolingAllocationConfig {
    let permits = u32::try_from(pool.permits).unwrap_or(u32::MAX / limits::CORE_INSTANCES);
    let mut pooling = PoolingAllocationConfig::new();
    pooling
        .total_component_instances(permits)
        .total_core_instances(permits * limits::CORE_INSTANCES)
        .total_memories(permits * limits::MEMORIES)
        .total_tables(permits * limits::TABLES)
        .total_stacks(permits)
        .max_core_instances_per_component(limits::CORE_INSTANCES)
        .max_memories_per_component(limits::MEMORIES)
        .max_tables_per_component(limits::TABLES)
        .max_tables_per_module(limits::TABLES)
        .table_elements(limits::TABLE_ELEMENTS)
        .max_memory_size(limits::MEMORY_BYTES)
        .linear_memory_keep_resident(limits::KEEP_RESIDENT_BYTES)
        .table_keep_resident(limits::KEEP_RESIDENT_BYTES)
        .max_unused_warm_slots(limits::WARM_MEMORIES)
        .pagemap_scan(match pool.pagemap_scan {
            PagemapScan::Auto => Enabled::Auto,
            PagemapScan::Off => Enabled::No,
        });
    pooling
}

/// Names what compiled code depends on: wasmtime's version, the flags above, this processor.
pub(crate) fn compatibility(engine: &wasmtime::Engine) -> u64 {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

/// FNV-1a, 64 bits: the standard library's hasher may differ between two builds, and a file's name must not.
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_child_compiles_what_the_host_loads() {
        let pool = Pool { permits: 1, pagemap_scan: PagemapScan::Auto };
        let host = wasmtime::Engine::new(&config(Some(pool))).expect("an engine with a pool");
        let child = wasmtime::Engine::new(&config(None)).expect("an engine without");
        assert_eq!(compatibility(&host), compatibility(&child));
    }
}
