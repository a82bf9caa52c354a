//! Ctrl-C and SIGTERM as a flag, so that a command can stop its daemon before it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

/// A flag that is set by Ctrl-C or SIGTERM.
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Starts to wait for Ctrl-C and SIGTERM.
    pub(crate) fn listen() -> Result<Self> {
        let is_set = Arc::new(AtomicBool::new(false));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot wait for signals")?;
        let streams = {
            let _inside = runtime.enter();
            signal(SignalKind::interrupt())
                .and_then(|int| Ok((int, signal(SignalKind::terminate())?)))
        };
        let (mut int, mut term) = streams.context("cannot wait for signals")?;
        let set = Arc::clone(&is_set);
        std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = int.recv() => (),
                    _ = term.recv() => (),
                }
            });
            set.store(true, Ordering::Relaxed);
        });
        Ok(Self(is_set))
    }

    /// Returns whether a signal was received.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
