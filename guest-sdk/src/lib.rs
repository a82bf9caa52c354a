//! Write loopabull tasks as plain Rust functions.
//!
//! A task is a function of one message. Loopabull runs it for every message whose topic
//! its manifest names, each time in a fresh Wasm instance that can reach nothing but the
//! modules [`log`], [`context`] and [`config`] of this crate.
//!
//! ```
//! use loopabull_task::{Message, OrReject, Result, context, log, reject, task};
//!
//! #[derive(serde::Deserialize)]
//! struct Build {
//!     name: String,
//!     version: String,
//! }
//!
//! /// Notes each build of the first major version.
//! #[task]
//! fn note_first_builds(message: Message<Build>) -> Result {
//!     let Build { name, version } = message.body;
//!     let Some((major, _)) = version.split_once('.') else {
//!         return reject(format!("`{version}` is not a version"));
//!     };
//!     let major: u32 = major.parse().or_reject()?;
//!     if major == 1 {
//!         log::info("a first version", &[("package", &name)]);
//!         context::note("package", &name);
//!     }
//!     Ok(())
//! }
//!
//! # fn main() {
//! // In a test the task is the function that it looks like, and `test` stands in for
//! // the host:
//! use loopabull_task::{Failure, test};
//!
//! let run = test::message("org.example.build", r#"{"name": "bull", "version": "1.2"}"#)
//!     .run(note_first_builds);
//! assert_eq!(run.result, Ok(()));
//! assert_eq!(run.note("package"), Some("bull"));
//!
//! let run = test::message("org.example.build", r#"{"name": "bull", "version": "one"}"#)
//!     .run(note_first_builds);
//! assert_eq!(run.result, Err(Failure::Reject("`one` is not a version".to_owned())));
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
//! underscores where the package has dashes. `cargo test` needs
//! no Wasm. Each message gets a fresh instance, which a small stack makes cheaper: the
//! tasks in loopabull's own repository have a `build.rs` to copy that asks for 64 KiB.

#![deny(missing_docs)]

// So that the doctests and unit tests here can use `#[task]`, which names this crate.
extern crate self as loopabull_task;

#[doc(hidden)]
pub mod bindings;
pub mod config;
pub mod context;
mod failure;
mod host;
pub mod log;
mod message;
#[cfg(not(target_family = "wasm"))]
pub mod test;

pub use loopabull_task_macros::task;

pub use crate::failure::{Failure, OrReject, Result, reject, retry};
pub use crate::message::Message;
