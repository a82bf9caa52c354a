//! What wasmtime makes of `wit/task.wit`.
#![allow(unreachable_pub, reason = "generated code")]

wasmtime::component::bindgen!({
    path: "../../../wit",
    world: "task",
    exports: { default: async },
});
