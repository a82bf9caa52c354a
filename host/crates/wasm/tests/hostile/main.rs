//! Hostile guests. Each run ends with the outcome that names its offence and leaves nothing behind
//! in the host, and the next message of the same task is handled.
//!
//! Only one guest runs in this process at a time, because the tests measure the process; see
//! `test_host.rs`.
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
