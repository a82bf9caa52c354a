//! Runs components: WebAssembly that exports `loopabull:task/handler`.
//!
//! The only crate that knows wasmtime. A component is inspected, compiled once and kept compiled; it
//! runs in a fresh instance for every message. It has a clock, random numbers, its log, its
//! configuration, and what its manifest grants. Time and memory are limited, and whatever it does,
//! what comes back is an [`Attempt`].
//!
//! Before it on the path of a message: the host's runner. After it: nothing, the outcome goes back.

#[doc(hidden)]
pub mod anatomy;
mod bindings;
mod cache;
mod capabilities;
mod clock;
mod engine;
mod host;
mod http;
mod inspect;
mod limiter;
mod native;
mod outcome;
mod profile;
mod run;
mod streams;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use loopabull_egress::{EgressLimits, Resolver, Trust};
use loopabull_model::{Attempt, Manifest, Message, RunId};
use tokio::sync::Semaphore;

pub use capabilities::GrantError;
pub use engine::EngineError;
pub use inspect::LoadError;
pub use profile::MAX_MEMORY;

/// The largest component that is loaded, in bytes.
pub const MAX_COMPONENT: u64 = 64 << 20;

/// Reads what a task remembers under a key. The error is one clause.
pub type ReadState = Arc<
    dyn Fn(String) -> Pin<Box<dyn Future<Output = Result<Option<Vec<u8>>, String>> + Send>>
        + Send
        + Sync,
>;

/// How a runner is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How many components run at a time at the most; one more waits. Memory is set aside for so
    /// many, as addresses, not as bytes.
    pub instances: u32,
    /// Where compiled components are kept; nowhere if not set.
    pub cache: Option<PathBuf>,
    pub egress: EgressSetup,
}

/// How components call out over HTTP, if they may.
#[derive(Clone, Debug)]
pub struct EgressSetup {
    pub limits: EgressLimits,
    /// Whose certificates are believed.
    pub trust: Trust,
    pub resolver: Resolver,
}

/// Compiles and runs components.
pub struct ComponentRunner {
    engine: engine::Engine,
    egress: EgressSetup,
    slots: Semaphore,
}

/// A component, compiled and checked, with what it was granted.
#[derive(Clone)]
pub struct Component {
    pre: bindings::GrantedPre<host::Host>,
    capabilities: Arc<capabilities::Capabilities>,
    /// Where its machine code came from.
    pub source: Source,
}

/// Where the machine code of a component came from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    Compiled,
    Cache,
}

/// One message for one component, with what this run may use.
#[derive(Clone)]
pub struct Call<'a> {
    pub message: &'a Message,
    pub run_id: RunId,
    /// Counted from 1.
    pub attempt: u32,
    /// Wall-clock time of the run.
    pub timeout: Duration,
    /// Bytes of all linear memories and tables together.
    pub memory: u64,
    /// Bytes of output that are kept.
    pub output: u64,
    /// How to read what the task remembers, if it may remember anything.
    pub state: Option<ReadState>,
}

impl ComponentRunner {
    /// Starts the engine.
    pub fn new(setup: &Setup) -> Result<Self, EngineError> {
        let instances = setup.instances.max(1);
        let engine = engine::Engine::start(instances, setup.cache.as_deref())?;
        let slots = Semaphore::new(instances as usize);
        Ok(Self { engine, egress: setup.egress.clone(), slots })
    }

    /// Checks that a component may have all that it asks for, and makes it ready to run. Takes tens of
    /// milliseconds, and seconds for large ones: it is done when tasks are loaded, never for a message.
    ///
    /// `secrets` are the values of those that the manifest grants, by their names.
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

    /// Runs a component on one message, in a fresh instance that is thrown away after it.
    pub async fn run(&self, component: &Component, call: Call<'_>) -> Attempt {
        let _slot = self.slots.acquire().await.expect("the semaphore is never closed");
        let _ticking = self.engine.clock.tick();
        run::run(&self.engine.wasmtime, &component.pre, &component.capabilities, call).await
    }
}
