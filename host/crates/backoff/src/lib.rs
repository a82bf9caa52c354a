//! The back-off: the wait before the next attempt to use a server or a disk that is failing.
//!
//! This is a crate of its own, so that the AMQP client, the queues and the host can share it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

const FIRST_WAIT: Duration = Duration::from_millis(200);
const MAX_WAIT: Duration = Duration::from_secs(15);

/// An exponential back-off with jitter. The number of attempts is not limited.
///
/// The wait doubles after every attempt, up to 15 s. Each wait is shortened at random, to no less than half
/// of its length. So clients that lost the same server do not all reconnect at the same moment.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    /// Waits until the next attempt, or until `stop` is cancelled.
    pub async fn pause(&mut self, stop: &CancellationToken) {
        let wait = self.next.mul_f64(0.5 + fastrand::f64() / 2.0);
        tokio::select! {
            () = tokio::time::sleep(wait) => (),
            () = stop.cancelled() => (),
        }
        self.next = (self.next * 2).min(MAX_WAIT);
    }

    /// Starts again with the shortest wait. Call this after a successful attempt.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST_WAIT }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_grow_to_a_limit() {
        let mut backoff = Backoff::default();
        for longest in [200, 400, 800, 1600, 3200, 6400, 12_800, 15_000, 15_000] {
            let start = tokio::time::Instant::now();
            backoff.pause(&CancellationToken::new()).await;
            let (longest, wait) = (Duration::from_millis(longest), start.elapsed());
            assert!((longest / 2..=longest + Duration::from_millis(1)).contains(&wait));
        }
    }
}
