//! A rate limit for one log line that a flood of messages would repeat.
//!
//! Decides when the line is due again and how many occurrences it stands for. The metrics count each
//! occurrence; this keeps the log readable.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The shortest time between two lines.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// A rate limit for one log line.
#[derive(Debug, Default)]
pub(super) struct LogLimit(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    logged: Option<Instant>,
    /// The number of occurrences since then.
    count: u64,
}

impl LogLimit {
    /// Counts an occurrence. If a line is due, returns the number of occurrences since the last line,
    /// this one included. The first occurrence is always due, then at most one each minute.
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
