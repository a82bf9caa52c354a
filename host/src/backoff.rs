//! The pause between two tries of something outside that does not work.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(15);

/// Doubles the pause at every try, up to 15 s. Never gives up.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    /// Waits, but not longer than until `stop`.
    pub async fn pause(&mut self, stop: &CancellationToken) {
        tokio::select! {
            () = tokio::time::sleep(self.next) => (),
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
        let start = tokio::time::Instant::now();
        for _ in 0..7 {
            backoff.pause(&CancellationToken::new()).await;
        }
        let expected = Duration::from_millis(200 * (1 + 2 + 4 + 8 + 16 + 32 + 64));
        assert_eq!(start.elapsed(), expected);
        backoff.pause(&CancellationToken::new()).await;
        assert_eq!(start.elapsed(), expected + LONGEST);
    }
}
