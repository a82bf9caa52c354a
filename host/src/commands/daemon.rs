//! Runs the daemon. loopabull-host without a subcommand calls this module.
//!
//! Starts logging, and turns SIGTERM and SIGINT into the two steps of a shutdown.

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
        // SIGHUP reloads the CA and CRL files. Without this handler, SIGHUP would end a daemon that
        // has no such files.
        let _hangup = signal(SignalKind::hangup())?;
        let daemon = tokio::select! {
            daemon = Daemon::start(config, role, shutdown.clone()) => daemon?,
            // No run has begun yet, so there is nothing to drain.
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
        tracing::info!("the daemon stopped");
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

/// The default log filter. lapin logs every closed channel as an error, even if the channel closes
/// as expected, for example when we look for a queue that does not exist. We log the errors that
/// matter ourselves.
const LOG_FILTER: &str = "info,lapin=off";

/// Starts logging to standard error, as plain text on a terminal and otherwise as one JSON object
/// per line. `RUST_LOG` sets the filter.
fn start_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG_FILTER));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        subscriber.with_target(false).init();
    } else {
        subscriber.json().flatten_event(true).with_current_span(false).init();
    }
}
