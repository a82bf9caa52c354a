//! Sets the stack size of the component to 64 KiB instead of 1 MiB.
//!
//! Every message runs in a fresh instance, and the host must clear the memory around its stack. With
//! the small stack a call takes a third of the time. Only the package that is linked can set the size.

fn main() {
    if std::env::var("CARGO_CFG_TARGET_FAMILY").as_deref() == Ok("wasm") {
        println!("cargo::rustc-link-arg-cdylib=-zstack-size=65536");
    }
    println!("cargo::rerun-if-changed=build.rs");
}
