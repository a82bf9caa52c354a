//! Retries of what a worker has to do before it may receive its next delivery.
//!
//! An operation on a queue or the journal is repeated with back-off until it succeeds or the daemon
//! drains: an entry that is not settled then is redelivered after the restart. Meanwhile the worker is
//! reported as not ready.

use std::sync::Arc;
use std::time::Duration;

use loopabull_queue::{Backoff, QueueError};
use tokio_util::sync::CancellationToken;

use crate::error::chain;
use crate::observe::health::{Condition, Health, Need, Part};

/// How long a consumer may take to stop or to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// The retries of one worker.
pub(crate) struct Retries {
    /// The number of the worker, counted from 1.
    pub worker: u32,
    pub health: Arc<Health>,
    pub drain: CancellationToken,
}

/// The retries of one operation. Dropping it resolves the reported problem.
pub(super) struct Retry<'a> {
    condition: Condition<'a>,
    retries: &'a Retries,
    backoff: Backoff,
}

impl Retries {
    /// Repeats an operation until it succeeds. Returns its last error if the daemon drains.
    pub(super) async fn run<T, E, F>(
        &self,
        need: Need,
        mut operation: impl FnMut() -> F,
    ) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: std::error::Error + Send + Sync + 'static,
    {
        let mut retry = self.start(need);
        loop {
            match operation().await {
                Ok(value) => return Ok(value),
                Err(error) => retry.wait(error).await?,
            }
        }
    }

    /// Starts the retries of an operation, which has not failed yet.
    pub(super) fn start(&self, need: Need) -> Retry<'_> {
        let condition = self.health.condition(Part::WorkerNeeds(self.worker, need));
        Retry { condition, retries: self, backoff: Backoff::default() }
    }

    /// Stops or closes a consumer, but does not wait long: a broker notices by itself that a consumer
    /// is gone.
    pub(super) async fn close(&self, close: impl Future<Output = Result<(), QueueError>>) {
        let worker = self.worker;
        match tokio::time::timeout(CLOSE_TIMEOUT, close).await {
            Ok(Ok(())) => (),
            Ok(Err(error)) => tracing::warn!(worker.number = worker, "{}", chain(error)),
            Err(_) => tracing::warn!(worker.number = worker, "the broker does not answer"),
        }
    }
}

impl Retry<'_> {
    /// Reports an error and waits before the next try. Returns the error if the daemon drains.
    pub(super) async fn wait<E>(&mut self, error: E) -> Result<(), E>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let Retries { worker, drain, .. } = self.retries;
        if drain.is_cancelled() {
            return Err(error);
        }
        let error = chain(error);
        tracing::error!(worker.number = worker, "{}: {error}; retrying", self.condition.part());
        self.condition.report(error);
        self.backoff.pause(drain).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io;

    use super::*;

    fn retries() -> Retries {
        Retries { worker: 3, health: Arc::default(), drain: CancellationToken::new() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_operation_is_reported_and_retried_until_it_succeeds() {
        let (retries, tries) = (retries(), Cell::new(0));
        let operation = || async {
            tries.set(tries.get() + 1);
            let reported = ["worker 3, journal: the disk is full"];
            assert_eq!(retries.health.problems(), &reported[..usize::from(tries.get() > 1)]);
            if tries.get() < 4 {
                Err(io::Error::other("the disk is full"))
            } else {
                Ok(tries.get())
            }
        };
        assert_eq!(retries.run(Need::Journal, operation).await.unwrap(), 4);
        assert!(retries.health.problems().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_operation_is_not_retried_once_the_daemon_drains() {
        let (retries, tries) = (retries(), Cell::new(0));
        retries.drain.cancel();
        let operation = || async {
            tries.set(tries.get() + 1);
            Err::<(), _>(io::Error::other("the disk is full"))
        };
        retries.run(Need::Queue, operation).await.unwrap_err();
        assert_eq!(tries.get(), 1);
        assert!(retries.health.problems().is_empty());
    }
}
