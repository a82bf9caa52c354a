//! The clock that interrupts guests.
//!
//! Owns the thread that moves the engine's epoch on while guests run. Does not know what a guest's
//! deadline is: the run looks at its own each time that it is interrupted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often a running guest is interrupted to look at its deadline and to let others run.
const TICK: Duration = Duration::from_millis(10);

/// Moves the epoch of an engine on as long as a guest runs.
pub(crate) struct Clock {
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

/// Held while a guest runs: the clock ticks as long as there is one of these.
pub(crate) struct Ticking<'a>(&'a Clock);

#[derive(Default)]
struct State {
    running: AtomicUsize,
    stopped: AtomicBool,
}

impl Clock {
    pub(crate) fn start(engine: &wasmtime::Engine) -> std::io::Result<Self> {
        let state = Arc::new(State::default());
        let thread = std::thread::Builder::new().name("epoch".to_owned()).spawn({
            let (engine, state) = (engine.clone(), Arc::clone(&state));
            move || state.run(&engine)
        })?;
        Ok(Self { state, thread: Some(thread) })
    }

    /// Makes the clock tick until what this returns is dropped.
    pub(crate) fn tick(&self) -> Ticking<'_> {
        if self.state.running.fetch_add(1, Ordering::SeqCst) == 0 {
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

impl Drop for Clock {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        self.unpark();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Drop for Ticking<'_> {
    fn drop(&mut self) {
        self.0.state.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl State {
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
