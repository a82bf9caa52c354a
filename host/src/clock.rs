//! The current time and durations in whole seconds. The current time is counted from 1970-01-01
//! UTC.
//!
//! The checks of certificates, the requests to datagrepper, and deduplication use whole seconds.
//! The journal and the pauses use milliseconds, which this module does not provide.

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
