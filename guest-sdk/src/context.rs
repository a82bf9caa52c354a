//! Facts about this run, and remarks to keep with it.

use std::fmt::Display;
use std::time::Duration;

use crate::host;

/// Returns the id of this run, as in `loopabull-host runs`.
pub fn run_id() -> String {
    host::context::run_id()
}

/// Returns which attempt at this message this is, counted from 1.
pub fn attempt() -> u32 {
    host::context::attempt()
}

/// Returns the time that is left until this run is stopped.
pub fn deadline() -> Duration {
    Duration::from_millis(host::context::deadline_ms())
}

/// Keeps a short remark with the run.
///
/// It is shown wherever the run is listed. The host caps number and length.
pub fn note(key: &str, value: impl Display) {
    host::context::note(key, &value.to_string());
}
