//! Tests with hostile guests. Each test checks three things: the outcome names the limit or rule that the
//! guest broke, the run leaves nothing behind in the host, and the next message of the same task is handled.
//!
//! Only one guest runs at a time, because the tests measure the memory and the file descriptors of this
//! process; see `test_host.rs`.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod cache;
mod effects;
mod ends;
mod handles;
mod memory;
mod output;
mod secrets;
mod tenants;
mod test_host;
mod test_runner;
mod time;
