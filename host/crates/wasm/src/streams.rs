//! What a guest writes: standard output, standard error and log lines, in one text with a cap.
//!
//! wasmtime's own pipes would end it, and its buffered stream has grown without bound under empty
//! writes (GHSA-5m8g).

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use loopabull_model::{Capture, Output};
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// How much a guest may write in one step.
const PERMIT: usize = 64 << 10;
/// How much of the end of standard error is kept apart, in bytes: what a guest says when it panics
/// comes last, when a chatty one has long used up its output.
const LAST_WORDS: usize = 4 << 10;

/// The text of one run. Clones write to the same text.
#[derive(Clone)]
pub(crate) struct Streams {
    written: Arc<Mutex<Written>>,
    is_error: bool,
}

struct Written {
    all: Capture,
    last_words: Vec<u8>,
}

impl Streams {
    pub(crate) fn new(cap: u64) -> Self {
        let written = Written { all: Capture::new(cap), last_words: Vec::new() };
        Self { written: Arc::new(Mutex::new(written)), is_error: false }
    }

    /// Returns the same text as standard error.
    pub(crate) fn as_error(&self) -> Self {
        Self { written: Arc::clone(&self.written), is_error: true }
    }

    pub(crate) fn push(&self, bytes: &[u8]) {
        let mut written = self.written();
        written.all.push(bytes);
        if self.is_error {
            let kept = bytes.len().min(LAST_WORDS);
            let many = (written.last_words.len() + kept).saturating_sub(LAST_WORDS);
            written.last_words.drain(..many);
            written.last_words.extend_from_slice(&bytes[bytes.len() - kept..]);
        }
    }

    pub(crate) fn to_output(&self) -> Output {
        self.written().all.to_output()
    }

    /// Returns the end of what was written to standard error.
    pub(crate) fn last_words(&self) -> String {
        String::from_utf8_lossy(&self.written().last_words).into_owned()
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
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
        Ok(PERMIT)
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
