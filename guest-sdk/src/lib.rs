//! Write loopabull tasks as plain Rust functions.
//!
//! A task is a function of one message. Loopabull runs it for every message whose topic
//! its manifest names, each time in a fresh Wasm instance that can reach nothing but what
//! [`Context`] offers: the log, the values of its manifest, and what the manifest grants.
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
//! /// Announces each build of a first major version.
//! #[task]
//! fn announce_first_builds(message: Message<Build>, cx: &Context) -> Result {
//!     let Build { name, version } = message.body;
//!     let Some((major, _)) = version.split_once('.') else {
//!         return reject(format!("`{version}` is not a version"));
//!     };
//!     let major: u32 = major.parse().or_reject()?;
//!     if major == 1 {
//!         info!(package = name, "a first version");
//!         cx.note("package", &name);
//!         cx.emit("org.example.build.first", &name)?; // sent only if we return `Ok`
//!     }
//!     Ok(())
//! }
//!
//! # fn main() {
//! // In a test the task is the function that it looks like, and `test` stands in for
//! // the host:
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
//! # Success, retry, reject
//!
//! `Ok(())` settles the message. `?` on any [`std::error::Error`] means [`Failure::Retry`]:
//! the message comes back, as often as the manifest allows. What will never work is
//! rejected, by [`reject`] or [`OrReject::or_reject`], and the message goes to the dead
//! letters at once. A body that does not fit the type in the signature is rejected before
//! the function is called. A panic is a failed attempt; its text is kept with the run.
//!
//! # What needs a grant
//!
//! | in the task | in the manifest |
//! |---|---|
//! | [`Context::emit`] | `emit = ["org.example.*.done"]` under `[grants]` |
//! | [`Context::state`] | `state = "1MiB"` under `[grants]` |
//! | [`Context::http`] | `http = ["https://a.example"]` under `[grants]` |
//! | [`Context::secret`] | `token = { file = "/etc/loopabull/token" }` under `[grants.secrets]` |
//!
//! A component imports what its code can reach and no more, and the host refuses one that imports
//! what its manifest does not grant as it loads it, not at the first message. Log lines,
//! [notes](Context::note) and the [`[config]` table](Context::config) need no grant.
//!
//! What a run sends and what it keeps in the state counts only if it succeeds. An HTTP request
//! does not wait: a task that may come back must bear to send it twice.
//!
//! # Building
//!
//! The task's package is a `cdylib`:
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
//! `cargo build --release --target wasm32-wasip2` makes the component. Copy it to
//! `tasks/NAME.wasm` of the daemon: NAME is the task's name, so mind that cargo writes
//! underscores where the package has dashes. `cargo test` needs no Wasm.
//!
//! Each message gets a fresh instance, which a small stack makes cheaper. Only the package that
//! is linked can ask for one, no dependency can do it: each task has a `build.rs` that asks for
//! 64 KiB. `loopabull-host tasks new` writes it; `guest-sdk/template/build.rs` is there to copy.

#![deny(missing_docs)]

// So that the doctests and unit tests here can use `#[task]`, which names this crate.
extern crate self as loopabull_task;

#[doc(hidden)]
pub mod bindings;
mod context;
mod failure;
mod host;
pub mod http;
pub mod log;
mod message;
mod state;
mod task;
#[cfg(not(target_family = "wasm"))]
pub mod test;

pub use loopabull_task_macros::task;

pub use crate::context::Context;
pub use crate::failure::{Failure, OrReject, Result, reject, retry};
pub use crate::message::Message;
pub use crate::state::State;
pub use crate::task::Task;
