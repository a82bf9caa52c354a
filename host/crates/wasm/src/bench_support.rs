//! The steps of a call, one by one, for the benchmark: what each costs, and what a call would cost
//! without a fresh instance.
//!
//! The product does not use this module. It runs a component with [`ComponentRunner::run`].

use wasmtime::Store;

use crate::bindings::Granted;
use crate::bindings::loopabull::task::types::Message;
use crate::host::Host;
use crate::{Call, Component, ComponentRunner, run};

/// A live instance with the message that it handles.
pub struct Instance {
    store: Store<Host>,
    task: Granted,
    message: Message,
}

/// Creates a store with all limits of a run, and drops it.
///
/// # Panics
///
/// If a granted directory no longer exists.
pub fn store(runner: &ComponentRunner, component: &Component, call: &Call<'_>) {
    let engine = &runner.engine.wasmtime;
    drop(run::store(engine, &component.capabilities, call).expect("the grants can be applied"));
}

/// Creates an instance in a store of its own.
///
/// # Panics
///
/// If the pool has no free slot.
pub async fn instantiate(
    runner: &ComponentRunner,
    component: &Component,
    call: &Call<'_>,
) -> Instance {
    let engine = &runner.engine.wasmtime;
    let store = run::store(engine, &component.capabilities, call);
    let mut store = store.expect("the grants can be applied");
    let task = component.pre.instantiate_async(&mut store).await.expect("the pool has a free slot");
    Instance { store, task, message: run::message(call) }
}

impl Instance {
    /// Handles the message once more, in the same instance.
    ///
    /// # Panics
    ///
    /// If the task does not succeed.
    pub async fn handle(&mut self) {
        // The host counts down the bytes that a run passes to it; this run is repeated without end.
        self.store.set_hostcall_fuel(usize::MAX);
        let handler = self.task.loopabull_task_handler();
        let result = handler.call_handle(&mut self.store, &self.message).await;
        result.expect("the guest does not trap").expect("the task succeeds");
    }
}
