//! Requests to real servers on this machine: granted requests, denied requests, and failures.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod addresses;

mod bodies;
mod certificates;
mod denied;
mod granted;
mod run_limits;
mod test_server;
mod timeouts;
