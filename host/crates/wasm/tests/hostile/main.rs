//! Guests that mean harm: each ends with the outcome that names what it did, leaves nothing behind
//! in the host, and the next message of the same task is worked.
//!
//! One process with one measured guest at a time, see `bed.rs`.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod bed;
mod cache;
mod effects;
mod ends;
mod handles;
mod memory;
mod output;
mod secrets;
mod setup;
mod tenants;
mod time;
