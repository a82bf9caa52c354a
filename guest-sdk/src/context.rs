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

/// Asks for a pause before the next attempt, if this run ends in a retry.
///
/// Without it the pause is that of the task's manifest. Reads as
/// `context::retry_after(Duration::from_secs(90)); return retry("the mirror is not synced");`. The
/// host caps it at seven days, and takes the last one if there are several.
pub fn retry_after(pause: Duration) {
    host::context::retry_after_ms(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
}

/// Keeps a short remark with the run.
///
/// It is shown wherever the run is listed. The host caps number and length.
pub fn note(key: &str, value: impl Display) {
    host::context::note(key, &value.to_string());
}
