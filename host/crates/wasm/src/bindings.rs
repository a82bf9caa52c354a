//! The bindings that wasmtime generates from `wit/task.wit`.
//!
//! The world is `granted`, which has everything that a manifest can grant. A component that imports
//! less fits it too. `inspect.rs` decides earlier which imports a component may have.
#![allow(unreachable_pub, reason = "generated code")]

wasmtime::component::bindgen!({
    path: "../../../wit",
    world: "granted",
    imports: {
        "loopabull:task/emit.publish": trappable,
        "loopabull:task/state.get": async | trappable,
        "loopabull:task/state.set": trappable,
        "loopabull:task/state.delete": trappable,
        "loopabull:task/state.compare-and-swap": async | trappable,
    },
    exports: { default: async },
});
