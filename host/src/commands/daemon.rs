//! The daemon, which runs without a subcommand.

use std::io::IsTerminal;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::commands::block_on;
use crate::commands::failure::{DONE, FAILED, Failure};
use crate::config::{Config, Role};
use crate::daemon::{Daemon, Stopped};
use crate::shutdown::Shutdown;

pub(crate) fn run(config: &Config, role: Role) -> Result<u8, Failure> {
    start_logging();
    block_on(async {
        let shutdown = Shutdown::default();
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        // SIGHUP reloads certificates; without a handler it would kill a daemon that has none.
        let _hangup = signal(SignalKind::hangup())?;
        let daemon = tokio::select! {
            daemon = Daemon::start(config, role, shutdown.clone()) => daemon?,
            // No message has been received yet.
            () = stop_signal(&mut terminate, &mut interrupt) => return Ok(DONE),
        };
        let wait = daemon.wait();
        tokio::pin!(wait);
        let stopped = loop {
            tokio::select! {
                stopped = &mut wait => break stopped?,
                () = stop_signal(&mut terminate, &mut interrupt) => {
                    if shutdown.drain.is_cancelled() {
                        shutdown.now();
                    }
                    shutdown.drain.cancel();
                }
            }
        };
        tracing::info!("stopped");
        Ok(if stopped == Stopped::Drained { DONE } else { FAILED })
    })?
}

/// Waits for SIGTERM or SIGINT.
async fn stop_signal(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => (),
        _ = interrupt.recv() => (),
    }
}

/// Starts logging to standard error: plain text on a terminal, otherwise one JSON object per line.
/// `RUST_LOG` sets the filter.
fn start_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        subscriber.with_target(false).init();
    } else {
        subscriber.json().flatten_event(true).with_current_span(false).init();
    }
}
