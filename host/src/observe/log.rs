//! The log: lines on standard error, written by a thread of its own.
//!
//! A log that cannot be written never stops the daemon. If the reader of standard error is slow, up to
//! [`MAX_WAITING`] lines wait for it. Lines beyond that, and lines that cannot be written at all, are
//! lost and counted.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// The default log filter. lapin logs every closed channel as an error, even if the channel closes
/// as expected, for example when we look for a queue that does not exist. We log such errors
/// ourselves. It also logs each returned message with its body. The module with the longer name logs the causes of lost connections.
const FILTER: &str = "info,lapin::channel=off,lapin::channels=info,lapin::returned_messages=off";
/// Number of lines that may wait for a slow reader.
const MAX_WAITING: usize = 10_000;

/// Lines that could not be written.
static UNWRITTEN: AtomicU64 = AtomicU64::new(0);
/// Number of lines that did not find room among the waiting ones.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();
/// Lost lines that [`take_lost_lines`] has returned.
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// Starts logging to standard error, as plain text on a terminal and otherwise as one JSON object
/// per line. `RUST_LOG` sets the filter. Dropping the returned guard writes the lines that wait.
pub(crate) fn start() -> WorkerGuard {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(FILTER));
    let builder = NonBlockingBuilder::default().buffered_lines_limit(MAX_WAITING);
    let (writer, guard) = builder.lossy(true).thread_name("log").finish(Stderr);
    DROPPED.get_or_init(|| writer.error_counter());
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        // These would be printed on standard error, which panics if that fails.
        .log_internal_errors(false);
    if io::stderr().is_terminal() {
        subscriber.with_target(false).init();
    } else {
        subscriber.with_ansi(false).json().flatten_event(true).with_current_span(false).init();
    }
    guard
}

/// Returns the number of lines that were lost since the last call.
pub(crate) fn take_lost_lines() -> u64 {
    let dropped = DROPPED.get().map_or(0, |counter| counter.dropped_lines() as u64);
    let lost = dropped + UNWRITTEN.load(Ordering::Relaxed);
    lost.saturating_sub(TAKEN.fetch_max(lost, Ordering::Relaxed))
}

/// Standard error. Every write succeeds: a line that cannot be written is counted.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Without the lock of `io::stderr`: a reader that is stuck must not stop whoever prints an error.
        let mut left = line;
        while !left.is_empty() {
            match rustix::io::write(rustix::stdio::stderr(), left) {
                Ok(written @ 1..) => left = &left[written..],
                Err(rustix::io::Errno::INTR) => (),
                Ok(0) | Err(_) => {
                    UNWRITTEN.fetch_add(1, Ordering::Relaxed);
                    break;
                }
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
