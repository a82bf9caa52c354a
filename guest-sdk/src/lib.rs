//! Write loopabull tasks as plain Rust functions.
//!
//! A task is a function that handles one message. Loopabull calls the function for every message whose topic
//! matches a pattern in the task's manifest. Each call runs in a new WebAssembly instance. The instance can
//! use only its log, the configuration in the manifest, a clock, random numbers, and what the manifest
//! grants. [`Context`] has the functions for this.
//!
//! ```
//! use loopabull_task::{Context, Message, OrReject, Result, info, reject, task};
//!
//! #[derive(serde::Deserialize)]
//! struct Build {
//!     name: String,
//!     version: String,
//! }
//!
//! /// Announces each build with the major version 1.
//! #[task]
//! fn announce_first_builds(message: Message<Build>, cx: &Context) -> Result {
//!     let Build { name, version } = message.body;
//!     let Some((major, _)) = version.split_once('.') else {
//!         return reject(format!("`{version}` is not a version"));
//!     };
//!     let major: u32 = major.parse().or_reject()?;
//!     if major == 1 {
//!         info!(package = name, "announcing a first version");
//!         cx.note("package", &name);
//!         cx.emit("org.example.build.first", &name)?; // sent if the task returns `Ok`
//!     }
//!     Ok(())
//! }
//!
//! # fn main() {
//! // A test calls the task as a plain function. The module `test` provides a stand-in for the host.
//! use loopabull_task::test;
//!
//! let run = test::message("org.example.build", r#"{"name": "bull", "version": "1.2"}"#)
//!     .run(announce_first_builds);
//! assert_eq!(run.result, Ok(()));
//! assert_eq!(run.note("package"), Some("bull"));
//! assert_eq!(run.emitted[0].body, "bull");
//!
//! let run = test::message("org.example.build", r#"{"name": "bull", "version": "one"}"#)
//!     .run(announce_first_builds);
//! assert_eq!(run.result, reject("`one` is not a version"));
//! # }
//! ```
//!
//! # Start a task
//!
//! `loopabull-host tasks new NAME --topic TOPIC` creates a package for a new task, with a manifest and a
//! test. If you create the package by hand, its library must be a `cdylib`:
//!
//! ```toml
//! [lib]
//! crate-type = ["cdylib"]
//!
//! [dependencies]
//! loopabull-task = { path = "loopabull-host/guest-sdk" } # in a checkout of loopabull-host
//! serde = { version = "1", features = ["derive"] }
//! ```
//!
//! `cargo test` runs the tests natively. `cargo build --release --target wasm32-wasip2` builds the component.
//! Cargo replaces the dashes of the package name by underscores in the file name of the component. Copy the
//! component to `tasks/NAME.wasm` of the daemon, where NAME is the name of the task.
//!
//! Also copy `guest-sdk/template/build.rs` into the package. This script reduces the stack to 64 KiB, which
//! makes a call much faster. Only the package that is linked can set the stack size, so the SDK cannot set it
//! for you.
//!
//! # Success, retry and reject
//!
//! | the task | the host |
//! |---|---|
//! | returns `Ok(())` | acknowledges the message |
//! | returns [`Failure::Retry`] | delivers the message again, as often as the manifest allows |
//! | returns [`Failure::Reject`] | moves the message to the dead-letter queue at once |
//! | panics | counts the attempt as failed and stores the panic message with the run |
//!
//! The operator `?` turns any [`std::error::Error`] into [`Failure::Retry`]. Use [`reject`] or
//! [`OrReject::or_reject`] for an error that another attempt cannot resolve. A message whose body does not
//! match the type in the task's signature is rejected before the task is called.
//!
//! # Grants
//!
//! | the task calls | the manifest needs |
//! |---|---|
//! | [`Context::emit`] | `emit = ["org.example.*.done"]` under `[grants]` |
//! | [`Context::state`] | `state = "1MiB"` under `[grants]` |
//! | [`Context::http`] | `http = ["https://a.example"]` under `[grants]` |
//! | [`Context::secret`] | `token = { file = "/etc/loopabull/token" }` under `[grants.secrets]` |
//!
//! A component imports only the interfaces that its code can reach. The host refuses to load a component that
//! imports an interface without the grant, so a missing grant is reported before the first message. The log,
//! [notes](Context::note) and the [`[config]` table](Context::config) need no grant.
//!
//! Emitted messages and changes of the state take effect only if the run succeeds. An HTTP request is sent at
//! once. If the message is retried, the request is sent again, so the server must tolerate duplicates.

#![deny(missing_docs)]

// The code that `#[task]` generates uses the crate name `loopabull_task`. This line makes the name valid in
// the tests of this crate too.
extern crate self as loopabull_task;

#[doc(hidden)]
pub mod bindings;
mod context;
#[doc(hidden)]
pub mod entry;
mod failure;
mod host;
pub mod http;
pub mod log;
mod message;
mod state;
mod task;
#[cfg(not(target_family = "wasm"))]
pub mod test;
mod url;

pub use loopabull_task_macros::task;

pub use crate::context::Context;
pub use crate::failure::{Failure, OrReject, Result, reject, retry};
pub use crate::message::Message;
pub use crate::state::State;
pub use crate::task::Task;
