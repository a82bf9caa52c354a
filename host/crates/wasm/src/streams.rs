//! The output of a guest: standard output, standard error and log lines, as one text of limited size.
//!
//! The streams of the crate wasmtime-wasi are not used. When its pipe in memory is full, a further write ends
//! the run. Its buffered stream once grew without limit when a guest wrote empty buffers (GHSA-5m8g).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use loopabull_model::{Capture, Output};
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// The maximum number of bytes that a guest may write in one call.
const MAX_WRITE_BYTES: usize = 64 << 10;
/// Number of bytes at the end of standard error that are kept in addition to the output. A panic message
/// comes last, when a guest may have used up its output limit already.
const STDERR_TAIL_BYTES: usize = 4 << 10;

/// The output of one run. Clones write to the same text.
#[derive(Clone)]
pub(crate) struct Streams {
    captured: Arc<Mutex<Captured>>,
    is_error: bool,
}

struct Captured {
    all: Capture,
    stderr_tail: Vec<u8>,
}

impl Streams {
    pub(crate) fn new(limit: u64) -> Self {
        let captured = Captured { all: Capture::new(limit), stderr_tail: Vec::new() };
        Self { captured: Arc::new(Mutex::new(captured)), is_error: false }
    }

    /// Returns the standard error stream of the same output.
    pub(crate) fn as_error(&self) -> Self {
        Self { captured: Arc::clone(&self.captured), is_error: true }
    }

    pub(crate) fn push(&self, bytes: &[u8]) {
        let mut captured = self.captured.lock();
        captured.all.push(bytes);
        if self.is_error {
            let kept = bytes.len().min(STDERR_TAIL_BYTES);
            let excess = (captured.stderr_tail.len() + kept).saturating_sub(STDERR_TAIL_BYTES);
            captured.stderr_tail.drain(..excess);
            captured.stderr_tail.extend_from_slice(&bytes[bytes.len() - kept..]);
        }
    }

    pub(crate) fn to_output(&self) -> Output {
        self.captured.lock().all.to_output()
    }

    /// Returns the end of standard error.
    pub(crate) fn stderr_tail(&self) -> String {
        String::from_utf8_lossy(&self.captured.lock().stderr_tail).into_owned()
    }
}

impl IsTerminal for Streams {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Streams {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

impl OutputStream for Streams {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(MAX_WRITE_BYTES)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Streams {
    async fn ready(&mut self) {}
}

impl AsyncWrite for Streams {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.push(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
