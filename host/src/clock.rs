//! The wall clock, as whole seconds since 1970-01-01 UTC.
//!
//! Certificates, datagrepper and the files of the state directory use this unit. Owns the
//! conversions; a value that does not fit becomes the maximum.

use std::time::Duration;

use jiff::Timestamp;

/// Returns the current time in seconds since 1970.
pub(crate) fn now_seconds() -> i64 {
    Timestamp::now().as_second()
}

/// Returns the whole seconds of a duration, at most `i64::MAX`.
pub(crate) fn whole_seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}
