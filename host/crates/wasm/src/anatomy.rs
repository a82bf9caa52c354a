//! A call taken apart, for the bench: what its parts cost, and what it would cost without a fresh
//! instance.
//!
//! Not for use: the product runs a component by [`ComponentRunner::run`], which measures nothing.

use wasmtime::Store;

use crate::bindings::Granted;
use crate::bindings::loopabull::task::types::Message;
use crate::host::Host;
use crate::{Call, Component, ComponentRunner, run};

/// A live instance.
pub struct Instance {
    store: Store<Host>,
    task: Granted,
    message: Message,
}

/// Makes a store with all of a run's limits, and drops it.
///
/// # Panics
///
/// If the component's grants are gone.
pub fn store(runner: &ComponentRunner, component: &Component, call: &Call<'_>) {
    let engine = &runner.engine.wasmtime;
    drop(run::store(engine, &component.capabilities, call).expect("its grants are there"));
}

/// Makes an instance in a store of its own.
///
/// # Panics
///
/// If there is no room for one.
pub async fn instantiate(
    runner: &ComponentRunner,
    component: &Component,
    call: &Call<'_>,
) -> Instance {
    let engine = &runner.engine.wasmtime;
    let store = run::store(engine, &component.capabilities, call);
    let mut store = store.expect("its grants are there");
    let task = component.pre.instantiate_async(&mut store).await.expect("there is room for it");
    Instance { store, task, message: run::message(call) }
}

impl Instance {
    /// Works the message once more, in the same instance.
    ///
    /// # Panics
    ///
    /// If the task does not succeed.
    pub async fn work(&mut self) {
        // What a run may hand over is counted down; this one never ends.
        self.store.set_hostcall_fuel(usize::MAX);
        let handler = self.task.loopabull_task_handler();
        let answer = handler.call_handle(&mut self.store, &self.message).await;
        answer.expect("it does not trap").expect("it succeeds");
    }
}
