//! The current time in milliseconds since 1970: for timestamps, and for waits.

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Returns the current time in milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Returns the current time for waits, in milliseconds. It begins with the time of the clock at the first call,
/// and goes on evenly: if the clock is set, nothing changes, and a suspended machine counts.
pub(crate) fn steady_ms() -> i64 {
    static START: LazyLock<(i64, i64)> = LazyLock::new(|| (now_ms(), boot_ms()));
    let (start, boot) = *START;
    start.saturating_add(boot_ms().saturating_sub(boot))
}

/// Returns the time since the machine was booted, in milliseconds.
fn boot_ms() -> i64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec.saturating_mul(1000).saturating_add(time.tv_nsec / 1_000_000)
}
