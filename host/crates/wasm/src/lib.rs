//! Runs components: WebAssembly that exports `loopabull:task/handler`.
//!
//! The only crate that knows wasmtime. A component is compiled once and runs in a fresh instance
//! for every message. It has a clock, random numbers, its log, its configuration and nothing else:
//! no file, no socket, no environment, no argument. Time and memory are limited, and whatever it
//! does, what comes back is an [`Attempt`].
//!
//! Before it on the path of a message: the host's runner. After it: nothing, the outcome goes back.

mod bindings;
mod engine;
mod host;
mod limiter;
mod run;
mod streams;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use loopabull_model::{Attempt, Message, RunId};

pub use engine::EngineError;

/// Compiles and runs components.
pub struct ComponentRunner {
    engine: engine::Engine,
}

/// A component, compiled and checked against the world of a task.
#[derive(Clone)]
pub struct Component {
    pre: bindings::TaskPre<host::Host>,
}

/// One message for one component, with what it may use.
#[derive(Clone, Debug)]
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
    pub config: Arc<BTreeMap<String, String>>,
}

/// Why a file is not a component that can be run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("it is not a component: {reason}")]
    NotComponent { reason: String },
    #[error("it does not fit the world `loopabull:task/task@0.1.0`: {reason}")]
    World { reason: String },
}

impl ComponentRunner {
    /// Starts the engine.
    pub fn new() -> Result<Self, EngineError> {
        engine::Engine::start().map(|engine| Self { engine })
    }

    /// Compiles a component and checks what it imports and exports. Takes tens of milliseconds, so
    /// it is done when tasks are loaded, never for a message.
    pub fn load(&self, bytes: &[u8]) -> Result<Component, LoadError> {
        self.engine.load(bytes).map(|pre| Component { pre })
    }

    /// Runs a component on one message, in a fresh instance that is thrown away after it.
    pub async fn run(&self, component: &Component, call: Call<'_>) -> Attempt {
        let _ticking = self.engine.tick();
        run::run(&self.engine, &component.pre, call).await
    }
}
