//! The pause between two tries of something outside that does not work.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(15);

/// Doubles the pause at every try, up to 15 s, each shortened by chance to no less than a half, so
/// that many who lost the same thing do not come back together. Never gives up.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    /// Waits, but not longer than until `stop`.
    pub async fn pause(&mut self, stop: &CancellationToken) {
        let pause = self.next.mul_f64(0.5 + fastrand::f64() / 2.0);
        tokio::select! {
            () = tokio::time::sleep(pause) => (),
            () = stop.cancelled() => (),
        }
        self.next = (self.next * 2).min(LONGEST);
    }

    /// Starts anew after something worked.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_a_limit() {
        let mut backoff = Backoff::default();
        for longest in [200, 400, 800, 1600, 3200, 6400, 12_800, 15_000, 15_000] {
            let start = tokio::time::Instant::now();
            backoff.pause(&CancellationToken::new()).await;
            let (longest, pause) = (Duration::from_millis(longest), start.elapsed());
            assert!((longest / 2..=longest + Duration::from_millis(1)).contains(&pause));
        }
    }
}
