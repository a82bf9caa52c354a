//! What stands behind [`crate::Context`] and the log macros: in a component the host, natively
//! the stand-in that [`crate::test`] prepares.
//!
//! Owns the choice between the two, so that no other module has to make it.

#[cfg(target_family = "wasm")]
pub(crate) mod wasi_http;

#[cfg(not(target_family = "wasm"))]
pub(crate) mod stand_in;

#[cfg(target_family = "wasm")]
pub(crate) use self::wasi_http as http;
#[cfg(target_family = "wasm")]
pub(crate) use crate::bindings::loopabull::task::{config, context, emit, log, secrets, state};

#[cfg(not(target_family = "wasm"))]
pub(crate) use self::stand_in::{config, context, emit, http, log, run, secrets, state};
