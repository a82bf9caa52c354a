//! Loads cached machine code as a component.
//!
//! This file has the only `unsafe` call of the crate.

use wasmtime::Engine;
use wasmtime::component::Component;

/// Loads a component from machine code that this host compiled and authenticated.
///
/// wasmtime refuses machine code that was compiled by another version or with other settings.
#[expect(
    unsafe_code,
    reason = "wasmtime cannot check the origin of machine code; the cache checks it"
)]
pub(crate) fn load(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `Component::serialize` returned these bytes on this host. `Cache::find` has verified
    // their HMAC, whose key only this user can read, on a copy in memory that nobody else writes to.
    unsafe { Component::deserialize(engine, code) }
}
