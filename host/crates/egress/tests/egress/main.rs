//! Requests to real servers on this machine, granted and not.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod addresses;
mod bed;
mod bodies;
mod certificates;
mod denied;
mod granted;
mod run_limits;
mod timeouts;
