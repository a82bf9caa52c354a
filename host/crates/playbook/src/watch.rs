//! Watches a run: reads its pipes, waits for its end, and ends the run when its timeout expires.
//!
//! These steps are the same for cold runs ([`crate::process`]) and for warm runs ([`crate::warm`]). This
//! module does not know how a run is started or signalled. The trait [`Running`] hides that.

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

/// The time that a run has after SIGTERM to end by itself. After that, it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// The timeout for killing all processes of a run.
pub(crate) const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// The time for which open pipes are still read after the end of a run.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(1);

/// The limits of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits<'a> {
    pub(crate) timeout: Duration,
    /// The maximum size of the stored output, in bytes.
    pub(crate) output: u64,
    /// The mask for the secrets in the results.
    pub(crate) mask: &'a Mask,
}

/// The reading ends of a run's pipes.
#[derive(Debug)]
pub(crate) struct Pipes {
    stdout: Receiver,
    stderr: Receiver,
    results: Receiver,
}

/// The writing ends of a run's pipes, which the process of the run gets.
#[derive(Debug)]
pub(crate) struct PipeEnds {
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    pub(crate) results: OwnedFd,
}

/// The reason why a run ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Cause {
    ByItself,
    Deadline,
    Cancelled,
}

/// A request to end a run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum EndRequest {
    /// Send SIGTERM to the program.
    Stop,
    /// Kill all processes of the run.
    Kill,
}

/// Everything that is known about a run that has ended.
#[derive(Debug)]
pub(crate) struct End {
    /// The reason why the run ended. An error means that the daemon does not know how the run ended.
    pub(crate) cause: Result<Cause, LostError>,
    /// The reports of the launcher. [`watch`] leaves this field empty, and its caller fills it in.
    pub(crate) reports: Vec<Report>,
    pub(crate) results: Option<Results>,
    pub(crate) output: Output,
}

/// A run that can be waited for and ended.
pub(crate) trait Running {
    /// Waits for the end of the run. The future may be dropped, and the function called again.
    async fn wait(&mut self) -> Result<(), LostError>;

    /// Sends a request to end the run, without waiting for the end.
    fn ask(&mut self, request: EndRequest) -> Result<(), LostError>;

    /// Kills a run that has not ended after either request.
    async fn abandon(&mut self) -> Result<(), LostError>;
}

impl End {
    /// Returns the end of a run whose process was lost.
    pub(crate) fn lost(error: LostError) -> Self {
        Self { cause: Err(error), reports: Vec::new(), results: None, output: Output::default() }
    }
}

impl Pipes {
    /// Creates the pipes of a run.
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

/// Reads the pipes of a run until the run ends. Ends the run when its timeout expires or `cancel` is
/// cancelled.
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
            // The pipes can be closed a moment before the run ends.
            () = &mut read => end.await,
        }
    };
    let output = capture.into_inner().unwrap_or_else(PoisonError::into_inner).to_output();
    End { cause, reports: Vec::new(), results: reader.into_results(), output }
}

/// Waits for the end of a run. When the timeout expires or `cancel` is cancelled, asks the run to stop, then
/// kills it.
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

/// Reads a stream into `capture` until the stream ends.
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

    /// A fake run that ends at the request `ends_at`, and keeps its pipes open until then.
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
