//! What holds around a program that was started by `loopabull-launch`, with namespaces and without.
//!
//! Owns the promises about what is killed, what is handed over and what is reported. Runs the real
//! launcher; what a program can reach from inside is tried by `probe.rs`.

#![expect(
    clippy::disallowed_methods,
    reason = "the launcher itself is under test, so nothing can start it but the test"
)]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod bed;
mod group;
mod promises;
