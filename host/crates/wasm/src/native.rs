//! Machine code of the cache becomes a component again.
//!
//! The one `unsafe` call of this crate, in a file of its own.

use wasmtime::Engine;
use wasmtime::component::Component;

/// Loads a component from machine code that this host compiled and sealed.
///
/// wasmtime itself refuses what another version or other settings made.
#[expect(
    unsafe_code,
    reason = "wasmtime cannot know where machine code comes from; the cache does"
)]
pub(crate) fn load(engine: &Engine, sealed: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes are what `Component::serialize` returned on this host. `Cache::find` has
    // checked the seal over them, whose key only this user can read, in memory that nobody else
    // writes to.
    unsafe { Component::deserialize(engine, sealed) }
}
