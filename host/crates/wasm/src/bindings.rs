//! The bindings that wasmtime generates from `wit/task.wit`.
//!
//! The bindings are those of the world `granted`, which has all imports that a manifest can grant. A
//! component with fewer imports fits this world too. Which of the imports a component may have is checked
//! earlier, in `inspect.rs`.
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
