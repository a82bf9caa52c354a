//! The clock that interrupts running guests.
//!
//! A thread increments the epoch of wasmtime's engine while guests run, and each increment interrupts all
//! running guests. The clock does not know the deadlines of runs: each run checks its own deadline when it is
//! interrupted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Interval at which a running guest is interrupted, to check its deadline and to let other runs continue.
const EPOCH_INTERVAL: Duration = Duration::from_millis(10);

/// Increments the epoch of an engine while at least one guest runs.
pub(crate) struct Clock {
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

/// Guard that keeps the clock running until the guard is dropped.
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

    /// Starts the clock if it is not running. The clock runs until the returned guard and all other guards
    /// are dropped.
    pub(crate) fn start_ticking(&self) -> Ticking<'_> {
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
                // Without a running guest the thread sleeps, so that an idle daemon does not wake up 100
                // times per second.
                std::thread::park();
            } else {
                std::thread::sleep(EPOCH_INTERVAL);
                engine.increment_epoch();
            }
        }
    }
}
