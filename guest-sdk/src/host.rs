//! The functions of the host that [`Context`](crate::Context), the log macros and the HTTP client call.
//!
//! In a component, these functions are imports. In native builds, they belong to the stand-in that
//! [`crate::test`] prepares. This module chooses between the two, so that the other modules are the same for
//! both.

pub(crate) mod exchange;
#[cfg(not(target_family = "wasm"))]
pub(crate) mod recorded;
#[cfg(not(target_family = "wasm"))]
pub(crate) mod stand_in;
#[cfg(target_family = "wasm")]
pub(crate) mod wasi_http;

#[cfg(target_family = "wasm")]
pub(crate) use self::wasi_http as http;
#[cfg(target_family = "wasm")]
pub(crate) use crate::bindings::loopabull::task::{config, context, emit, log, secrets, state};

#[cfg(not(target_family = "wasm"))]
pub(crate) use self::stand_in::{config, context, emit, http, log, run, secrets, state};
