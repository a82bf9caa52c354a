//! A rate limit for a log line that a flood of messages would repeat.
//!
//! Decides when the line is logged again, and counts the occurrences in between. The metrics are
//! not limited: they count every occurrence.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Minimum time between two log lines.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// A rate limit for one log line.
#[derive(Debug, Default)]
pub(super) struct LogLimit(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    logged: Option<Instant>,
    /// Number of occurrences since the last log line.
    count: u64,
}

impl LogLimit {
    /// Counts an occurrence. If a log line is due, returns the number of occurrences since the last
    /// log line, including this occurrence. The first log line is due at once, and later ones at
    /// most once a minute.
    pub(super) fn count(&self) -> Option<u64> {
        let mut state = self.0.lock();
        state.count += 1;
        if state.logged.is_some_and(|logged| logged.elapsed() < LOG_INTERVAL) {
            return None;
        }
        state.logged = Some(Instant::now());
        Some(std::mem::take(&mut state.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_line_is_due_once_a_minute_and_counts_the_others() {
        let limit = LogLimit::default();
        assert_eq!([limit.count(), limit.count(), limit.count()], [Some(1), None, None]);
        tokio::time::advance(LOG_INTERVAL).await;
        assert_eq!([limit.count(), limit.count()], [Some(3), None]);
    }
}
