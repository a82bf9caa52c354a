//! Watches a run: reads its pipes, waits for its end, and ends it at its deadline.
//!
//! Owns the order of those steps, for a cold run ([`crate::process`]) and a warm one
//! ([`crate::warm`]) alike. Must not know how a run is started or signalled.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use loopabull_launcher::Report;
use loopabull_model::{Capture, Mask, Output, Results};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe::Receiver;
use tokio_util::sync::CancellationToken;

use crate::error::LostError;
use crate::results::Reader;

/// How long a run may go on after it was asked to stop, before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take to kill everything that a run started.
pub(crate) const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long pipes are read after the end of a run; nothing should hold them open.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(1);

/// The limits of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits<'a> {
    pub(crate) timeout: Duration,
    /// How much of the output is kept, in bytes.
    pub(crate) output: u64,
    /// Hides secrets in the results.
    pub(crate) mask: &'a Mask,
}

/// The reading ends of a run's pipes.
#[derive(Debug)]
pub(crate) struct Pipes {
    stdout: Receiver,
    stderr: Receiver,
    results: Receiver,
}

/// The writing ends of a run's pipes, for the run.
#[derive(Debug)]
pub(crate) struct PipeEnds {
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    pub(crate) results: OwnedFd,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Cause {
    ByItself,
    Deadline,
    Cancelled,
}

/// How a run is asked to end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum EndRequest {
    /// SIGTERM for the program.
    Stop,
    /// SIGKILL for the program and everything that it started.
    Kill,
}

/// Everything that is known about a run that has ended.
#[derive(Debug)]
pub(crate) struct End {
    /// Why it ended. The error says why its end could not be observed.
    pub(crate) cause: Result<Cause, LostError>,
    /// The reports of the launcher, which [`watch`] leaves to its caller.
    pub(crate) reports: Vec<Report>,
    pub(crate) results: Option<Results>,
    pub(crate) output: Output,
}

/// Something that runs and can be ended.
pub(crate) trait Running {
    /// Waits for the end. The future may be dropped, and this called again.
    async fn wait(&mut self) -> Result<(), LostError>;

    /// Asks the run to end.
    fn ask(&mut self, request: EndRequest) -> Result<(), LostError>;

    /// Kills a run that did not end when it was asked to.
    async fn abandon(&mut self) -> Result<(), LostError>;
}

impl End {
    /// Returns the end of a run about which nothing is known.
    pub(crate) fn lost(error: LostError) -> Self {
        Self { cause: Err(error), reports: Vec::new(), results: None, output: Output::default() }
    }
}

impl Pipes {
    /// Makes the pipes of a run.
    pub(crate) fn make() -> std::io::Result<(Self, PipeEnds)> {
        let pipe = || {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            std::io::Result::Ok((Receiver::from_owned_fd(read)?, write))
        };
        let ((stdout, theirs_out), (stderr, theirs_err)) = (pipe()?, pipe()?);
        let (results, theirs_results) = pipe()?;
        let ends = PipeEnds { stdout: theirs_out, stderr: theirs_err, results: theirs_results };
        Ok((Self { stdout, stderr, results }, ends))
    }
}

/// Reads the pipes of a run until it ends, and ends it at its deadline or when it is cancelled.
pub(crate) async fn watch(
    running: &mut impl Running,
    mut pipes: Pipes,
    limits: Limits<'_>,
    cancel: &CancellationToken,
) -> End {
    let capture = Mutex::new(Capture::new(limits.output));
    let mut reader = Reader::new(limits.mask);
    let cause = {
        let read = async {
            tokio::join!(
                drain(&mut pipes.stdout, &capture),
                drain(&mut pipes.stderr, &capture),
                reader.read(&mut pipes.results),
            );
        };
        let end = wait(running, limits.timeout, cancel);
        tokio::pin!(read, end);
        tokio::select! {
            cause = &mut end => {
                drop(tokio::time::timeout(READ_TIMEOUT, read).await);
                cause
            }
            // The pipes may end first, and the run take a moment more.
            () = &mut read => end.await,
        }
    };
    let output = capture.into_inner().unwrap_or_else(PoisonError::into_inner).to_output();
    End { cause, reports: Vec::new(), results: reader.into_results(), output }
}

/// Waits for the end, and brings it about if it does not come in time.
async fn wait(
    running: &mut impl Running,
    timeout: Duration,
    cancel: &CancellationToken,
) -> Result<Cause, LostError> {
    let cause = tokio::select! {
        ended = running.wait() => return ended.map(|()| Cause::ByItself),
        () = tokio::time::sleep(timeout) => Cause::Deadline,
        () = cancel.cancelled() => Cause::Cancelled,
    };
    for (request, grace) in [(EndRequest::Stop, STOP_TIMEOUT), (EndRequest::Kill, KILL_TIMEOUT)] {
        running.ask(request)?;
        if let Ok(ended) = tokio::time::timeout(grace, running.wait()).await {
            return ended.map(|()| cause);
        }
    }
    running.abandon().await.map(|()| cause)
}

/// Reads a stream to its end.
async fn drain(stream: &mut (impl AsyncRead + Unpin), capture: &Mutex<Capture>) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        capture.lock().unwrap_or_else(PoisonError::into_inner).push(&buffer[..count]);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A run that ends when it is asked in this way, and keeps its pipes open until then.
    #[derive(Debug, Default)]
    struct Fake {
        ends_at: Option<EndRequest>,
        has_ended: bool,
        asked: Vec<EndRequest>,
        is_abandoned: bool,
    }

    impl Running for Fake {
        async fn wait(&mut self) -> Result<(), LostError> {
            if !self.has_ended {
                std::future::pending::<()>().await;
            }
            Ok(())
        }

        fn ask(&mut self, request: EndRequest) -> Result<(), LostError> {
            self.asked.push(request);
            self.has_ended = self.ends_at == Some(request);
            Ok(())
        }

        async fn abandon(&mut self) -> Result<(), LostError> {
            self.is_abandoned = true;
            Ok(())
        }
    }

    async fn end(mut run: Fake, cancel: &CancellationToken) -> (Fake, End) {
        let (pipes, ends) = Pipes::make().unwrap();
        std::fs::File::from(ends.stdout.try_clone().unwrap()).write_all(b"said").unwrap();
        let mask = Mask::default();
        let limits = Limits { timeout: Duration::from_millis(50), output: 3, mask: &mask };
        let end = watch(&mut run, pipes, limits, cancel).await;
        drop(ends);
        (run, end)
    }

    #[tokio::test]
    async fn a_run_at_its_deadline_is_stopped_and_its_output_is_kept() {
        let run = Fake { ends_at: Some(EndRequest::Stop), ..Fake::default() };
        let (run, end) = end(run, &CancellationToken::new()).await;
        assert_eq!(run.asked, [EndRequest::Stop]);
        assert!(matches!(end.cause, Ok(Cause::Deadline)));
        assert_eq!(end.output, Output { text: "sai".to_owned(), dropped: 1 });
    }

    #[tokio::test]
    async fn a_run_that_has_ended_is_not_asked_even_if_its_pipes_stay_open() {
        let run = Fake { has_ended: true, ..Fake::default() };
        let (run, end) = end(run, &CancellationToken::new()).await;
        assert!(run.asked.is_empty());
        assert!(matches!(end.cause, Ok(Cause::ByItself)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_ignores_both_requests_is_abandoned() {
        let cancel = CancellationToken::new();
        cancel.cancel();
        let (run, end) = end(Fake::default(), &cancel).await;
        assert_eq!(run.asked, [EndRequest::Stop, EndRequest::Kill]);
        assert!(run.is_abandoned);
        assert!(matches!(end.cause, Ok(Cause::Cancelled)));
    }
}
