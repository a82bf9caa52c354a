//! The guarantees for programs that `loopabull-launch` starts, with namespaces and without.
//!
//! These tests cover the processes that are killed, the descriptors and variables that are passed
//! on, the grants, and the reports. They run the real launcher. `probe.rs` tests the access that a
//! program has from inside.

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
