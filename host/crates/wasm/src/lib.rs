//! Compiles and runs components: WebAssembly that exports `loopabull:task/handler`.
//!
//! This is the only crate that uses wasmtime. A component is checked, compiled once and cached. Each message
//! gets a fresh instance of the component. An instance can use a clock, random numbers, its log, its
//! configuration, and the resources that its manifest grants. Its time and memory are limited. Each run
//! returns an [`Attempt`], even after a trap or a timeout.
//!
//! The host loads components with [`ComponentRunner::load`], and calls [`ComponentRunner::run`] for each
//! message. This crate reads no queue and stores no run.

#[cfg(feature = "bench-support")]
#[doc(hidden)]
pub mod bench_support;
mod bindings;
mod cache;
mod call;
mod capabilities;
mod clock;
mod engine;
mod host;
mod http;
mod inspect;
mod limiter;
mod limits;
mod native;
mod outcome;
mod profile;
mod run;
mod setup;
mod streams;

use std::collections::BTreeMap;
use std::sync::Arc;

use loopabull_model::{Attempt, Manifest};
use tokio::sync::Semaphore;

pub use call::{Call, ReadState};
pub use capabilities::GrantError;
pub use engine::{EngineError, Source};
pub use inspect::LoadError;
pub use profile::MAX_MEMORY;
pub use setup::{EgressSetup, Setup};

/// The maximum size of a component, in bytes.
pub const MAX_COMPONENT: u64 = 64 << 20;

/// Compiles and runs components.
pub struct ComponentRunner {
    engine: engine::Engine,
    egress: EgressSetup,
    slots: Semaphore,
}

/// A compiled and checked component with its capabilities.
#[derive(Clone)]
pub struct Component {
    pre: bindings::GrantedPre<host::Host>,
    capabilities: Arc<capabilities::Capabilities>,
    /// Origin of the component's machine code.
    pub source: Source,
}

impl ComponentRunner {
    /// Starts the engine.
    pub fn new(setup: &Setup) -> Result<Self, EngineError> {
        let instances = setup.instances.max(1);
        let engine = engine::Engine::start(instances, &setup.cache)?;
        let slots = Semaphore::new(instances as usize);
        Ok(Self { engine, egress: setup.egress.clone(), slots })
    }

    /// Checks that a component imports only what its manifest grants, and compiles it or loads it from the
    /// cache.
    ///
    /// Compiling takes tens of milliseconds, or seconds for large components. So components are loaded when
    /// the host loads its tasks, not when a message arrives. `secrets` has the values of the granted secrets,
    /// by name.
    pub fn load(
        &self,
        bytes: &[u8],
        manifest: &Manifest,
        secrets: BTreeMap<String, String>,
    ) -> Result<Component, LoadError> {
        let (found, limit) = (bytes.len() as u64, MAX_COMPONENT);
        if found > limit {
            return Err(LoadError::TooLarge { bytes: found, limit });
        }
        inspect::check(bytes, &manifest.grants)?;
        let capabilities = capabilities::Capabilities::open(manifest, secrets, &self.egress)?;
        let (pre, source) = self.engine.load(bytes)?;
        Ok(Component { pre, capabilities: Arc::new(capabilities), source })
    }

    /// Runs a component on one message, in a fresh instance that is dropped afterwards.
    pub async fn run(&self, component: &Component, call: Call<'_>) -> Attempt {
        let _slot = self.slots.acquire().await.expect("the semaphore is never closed");
        let _running = self.engine.clock.start_ticking();
        run::run(&self.engine.wasmtime, &component.pre, &component.capabilities, call).await
    }
}
