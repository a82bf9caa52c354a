//! Promises about programs that `loopabull-launch` starts, with namespaces and without.
//!
//! Owns the tests of what is killed, passed on, granted and reported. Runs the real launcher; `probe.rs`
//! tries what a program can reach from inside.

#![expect(
    clippy::disallowed_methods,
    reason = "the launcher itself is under test, so nothing can start it but the test"
)]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod cgroup;
mod fixture;
mod grants;
mod reports;
mod supervision;
