//! Retries of the operations that a worker, or what follows behind it, must finish.
//!
//! An operation on a queue, the journal or the outbox is retried with back-off until it succeeds or
//! the daemon drains. If an entry is not settled by then, it is redelivered after the restart.
//! While an operation fails, `/readyz` reports a problem of the worker. If a task fails, the queue
//! redelivers the message; this module is not involved.

use std::sync::Arc;
use std::time::Duration;

use loopabull_model::chain;
use loopabull_queue::{Backoff, QueueError};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::observe::health::{Condition, Health, Need, Part};

/// Time limit for a consumer to stop or to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// The retries of one worker.
pub(crate) struct Retries {
    /// Number of the worker, counted from 1.
    pub worker: u32,
    pub health: Arc<Health>,
    pub drain: CancellationToken,
}

/// The retries of one operation. Dropping this value resolves the reported problem.
pub(super) struct Retry<'a> {
    condition: Condition<'a>,
    retries: &'a Retries,
    backoff: Backoff,
}

impl Retries {
    /// Repeats an operation until it succeeds. If the daemon drains, returns the last error.
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

    /// Does the same, and holds `works` while the operation fails.
    pub(super) async fn run_holding<T, E, F>(
        &self,
        need: Need,
        works: &Mutex<()>,
        mut operation: impl FnMut() -> F,
    ) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: std::error::Error + Send + Sync + 'static,
    {
        let (mut retry, mut held) = (self.start(need), None);
        loop {
            match operation().await {
                Ok(value) => return Ok(value),
                Err(error) => {
                    if held.is_none() {
                        held = Some(works.lock().await);
                    }
                    retry.wait(error).await?;
                }
            }
        }
    }

    /// Returns the retries for an operation that is about to begin.
    pub(super) fn start(&self, need: Need) -> Retry<'_> {
        let condition = self.health.condition(Part::WorkerNeeds(self.worker, need));
        Retry { condition, retries: self, backoff: Backoff::default() }
    }

    /// Stops or closes a consumer. An error or a timeout is only logged, because the broker also
    /// notices by itself that a consumer is gone.
    pub(super) async fn close(&self, close: impl Future<Output = Result<(), QueueError>>) {
        let worker = self.worker;
        match tokio::time::timeout(CLOSE_TIMEOUT, close).await {
            Ok(Ok(())) => (),
            Ok(Err(error)) => {
                tracing::warn!(worker.number = worker, "cannot stop a consumer: {}", chain(error))
            }
            Err(_) => tracing::warn!(worker.number = worker, "stopping a consumer timed out"),
        }
    }
}

impl Retry<'_> {
    /// Resolves the reported problem. The next error reports it again.
    pub(super) fn resolve(&self) {
        self.condition.resolve();
    }

    /// Reports an error and waits before the next attempt. Returns the error if the daemon drains.
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
    async fn a_failing_operation_keeps_others_waiting_until_it_succeeds() {
        let (retries, tries, works) = (retries(), Cell::new(0), Mutex::new(()));
        let operation = || async {
            tries.set(tries.get() + 1);
            // The first try does not know yet that it fails.
            assert_eq!(works.try_lock().is_err(), tries.get() > 1);
            if tries.get() < 4 { Err(io::Error::other("the disk is full")) } else { Ok(()) }
        };
        let waiting = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            drop(works.lock().await);
            tries.get()
        };
        let (done, tries_before) =
            tokio::join!(retries.run_holding(Need::Journal, &works, operation), waiting);
        assert_eq!((done.is_ok(), tries_before), (true, 4));
        retries.run_holding(Need::Journal, &works, async || Ok::<_, io::Error>(())).await.unwrap();
        assert!(works.try_lock().is_ok());
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
