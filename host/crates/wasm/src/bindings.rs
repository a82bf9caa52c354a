//! What wasmtime makes of `wit/task.wit`.
//!
//! The world is `granted`, with everything that a manifest can grant: a component that imports less
//! fits it too. What one may import is decided before, in `inspect.rs`.
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
