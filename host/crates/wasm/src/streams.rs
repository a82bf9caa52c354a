//! What a guest writes: standard output, standard error and log lines, in one text with a cap.
//!
//! wasmtime's own pipes would end it, and its buffered stream has grown without bound under empty
//! writes (GHSA-5m8g).

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use loopabull_model::{Capture, Output};
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// How much a guest may write in one step.
const PERMIT: usize = 64 << 10;

/// The text of one run. Clones write to the same text.
#[derive(Clone)]
pub(crate) struct Streams(Arc<Mutex<Capture>>);

impl Streams {
    pub(crate) fn new(cap: u64) -> Self {
        Self(Arc::new(Mutex::new(Capture::new(cap))))
    }

    pub(crate) fn push(&self, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
    }

    pub(crate) fn to_output(&self) -> Output {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).to_output()
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
