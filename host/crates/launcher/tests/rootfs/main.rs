//! Tests of programs that `loopabull-launch` starts, with namespaces and without.
//!
//! The tests run the real launcher and cover processes that are left behind, passed-on file descriptors
//! and variables, grants, and reports. `probe.rs` tests the access that a program has in the sandbox.

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
mod watch;
