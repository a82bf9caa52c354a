//! Gives the component a stack of 64 KiB instead of 1 MiB. A fresh instance is made for
//! every message and touches the pages around its stack: with the small one they are few,
//! and a call costs a third. Only the package itself can ask the linker for this.

fn main() {
    if std::env::var("CARGO_CFG_TARGET_FAMILY").as_deref() == Ok("wasm") {
        println!("cargo::rustc-link-arg-cdylib=-zstack-size=65536");
    }
    println!("cargo::rerun-if-changed=build.rs");
}
