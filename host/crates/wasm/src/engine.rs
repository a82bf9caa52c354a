//! The engine: wasmtime's settings, the linker and the clock that interrupts guests.
//!
//! The profile is small on purpose: no garbage collector, no threads, no component-model async, no
//! sockets. Most of wasmtime's advisories of the last year are about what is switched off here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::component::{HasSelf, Linker};
use wasmtime_wasi::WasiView;
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::{cli, filesystem, random};
use wasmtime_wasi::random::WasiRandom;

use crate::LoadError;
use crate::bindings::{Task, TaskPre};
use crate::host::Host;

/// How often a running guest is interrupted to look at its deadline and to let others run.
const TICK: Duration = Duration::from_millis(10);

/// Why the engine cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the WebAssembly engine: {reason}")]
pub struct EngineError {
    reason: String,
}

/// wasmtime, set up for tasks.
pub(crate) struct Engine {
    engine: wasmtime::Engine,
    linker: Linker<Host>,
    clock: Arc<Clock>,
    thread: Option<JoinHandle<()>>,
}

/// Held while a guest runs: the clock ticks as long as there is one of these.
pub(crate) struct Ticking<'a>(&'a Engine);

#[derive(Default)]
struct Clock {
    running: AtomicUsize,
    stopped: AtomicBool,
}

impl Engine {
    pub(crate) fn start() -> Result<Self, EngineError> {
        let error = |error: wasmtime::Error| EngineError { reason: format!("{error:#}") };
        let engine = wasmtime::Engine::new(&config()).map_err(error)?;
        let linker = linker(&engine).map_err(error)?;
        let clock = Arc::new(Clock::default());
        let thread = std::thread::Builder::new()
            .name("epoch".to_owned())
            .spawn({
                let (engine, clock) = (engine.clone(), Arc::clone(&clock));
                move || clock.run(&engine)
            })
            .map_err(|source| EngineError { reason: format!("no thread: {source}") })?;
        Ok(Self { engine, linker, clock, thread: Some(thread) })
    }

    pub(crate) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.engine
    }

    pub(crate) fn load(&self, bytes: &[u8]) -> Result<TaskPre<Host>, LoadError> {
        let component = wasmtime::component::Component::from_binary(&self.engine, bytes)
            .map_err(|error| LoadError::NotComponent { reason: format!("{error:#}") })?;
        self.linker
            .instantiate_pre(&component)
            .and_then(TaskPre::new)
            .map_err(|error| LoadError::World { reason: format!("{error:#}") })
    }

    /// Makes the clock tick until what this returns is dropped.
    pub(crate) fn tick(&self) -> Ticking<'_> {
        if self.clock.running.fetch_add(1, Ordering::SeqCst) == 0 {
            self.unpark();
        }
        Ticking(self)
    }

    fn unpark(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.clock.stopped.store(true, Ordering::SeqCst);
        self.unpark();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Drop for Ticking<'_> {
    fn drop(&mut self) {
        self.0.clock.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Clock {
    fn run(&self, engine: &wasmtime::Engine) {
        while !self.stopped.load(Ordering::SeqCst) {
            if self.running.load(Ordering::SeqCst) == 0 {
                // An idle daemon does not wake a hundred times a second.
                std::thread::park();
            } else {
                std::thread::sleep(TICK);
                engine.increment_epoch();
            }
        }
    }
}

fn config() -> wasmtime::Config {
    let mut config = wasmtime::Config::new();
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
        .async_stack_size(1 << 20);
    config
}

fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<Host>> {
    let mut linker = Linker::new(engine);
    Task::add_to_linker::<_, HasSelf<_>>(&mut linker, |host| host)?;
    // Clocks, random numbers, standard streams and the streams under them.
    wasmtime_wasi::p2::add_to_linker_proxy_interfaces_async(&mut linker)?;
    // What a guest's standard library asks for at load and finds empty here: no environment, no
    // arguments, no terminal, no directory. `wasi:sockets` is not linked at all.
    let linked = &mut linker;
    cli::environment::add_to_linker::<_, WasiCli>(linked, Host::cli)?;
    cli::exit::add_to_linker::<_, WasiCli>(linked, Host::cli)?;
    cli::terminal_input::add_to_linker::<_, WasiCli>(linked, Host::cli)?;
    cli::terminal_output::add_to_linker::<_, WasiCli>(linked, Host::cli)?;
    cli::terminal_stdin::add_to_linker::<_, WasiCli>(linked, Host::cli)?;
    cli::terminal_stdout::add_to_linker::<_, WasiCli>(linked, Host::cli)?;
    cli::terminal_stderr::add_to_linker::<_, WasiCli>(linked, Host::cli)?;
    filesystem::types::add_to_linker::<_, WasiFilesystem>(linked, Host::filesystem)?;
    filesystem::preopens::add_to_linker::<_, WasiFilesystem>(linked, Host::filesystem)?;
    random::insecure::add_to_linker::<_, WasiRandom>(linked, |host| host.ctx().ctx.random())?;
    random::insecure_seed::add_to_linker::<_, WasiRandom>(linked, |host| host.ctx().ctx.random())?;
    Ok(linker)
}
