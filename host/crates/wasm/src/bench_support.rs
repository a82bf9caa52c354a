//! The steps of a call as separate functions, for the benchmark. The benchmark measures the cost of each
//! step, and the cost of a call that reuses an instance.
//!
//! The product does not use this module. The product runs components with [`ComponentRunner::run`].

use wasmtime::Store;

use crate::bindings::Granted;
use crate::bindings::loopabull::task::types::Message;
use crate::host::Host;
use crate::{Call, Component, ComponentRunner, run};

/// A live instance and the message that it handles.
pub struct Instance {
    store: Store<Host>,
    task: Granted,
    message: Message,
}

/// Creates a store with all limits of a run, and drops the store.
///
/// # Panics
///
/// Panics if a granted directory no longer exists.
pub fn store(runner: &ComponentRunner, component: &Component, call: &Call<'_>) {
    let engine = &runner.engine.wasmtime;
    drop(run::store(engine, &component.capabilities, call).expect("the grants can be applied"));
}

/// Creates an instance in a new store.
///
/// # Panics
///
/// Panics if the pool has no free slot.
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
    /// Calls the instance with the message once more.
    ///
    /// # Panics
    ///
    /// Panics if the task does not succeed.
    pub async fn handle(&mut self) {
        // The store limits the bytes that one run may pass to the host. Many calls share this store, so the
        // limit is reset.
        self.store.set_hostcall_fuel(usize::MAX);
        let handler = self.task.loopabull_task_handler();
        let result = handler.call_handle(&mut self.store, &self.message).await;
        result.expect("the guest does not trap").expect("the task succeeds");
    }
}
