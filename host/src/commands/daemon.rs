//! No subcommand: the daemon.

use std::io::IsTerminal;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::commands::block_on;
use crate::commands::failure::{DONE, FAILED, Failure};
use crate::config::{Config, Role};
use crate::daemon::{Daemon, Stopped};
use crate::shutdown::Shutdown;

pub(crate) fn run(config: &Config, role: Role) -> Result<u8, Failure> {
    log();
    block_on(async {
        let shutdown = Shutdown::default();
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        // Whether or not there is something to read again, it ends nothing.
        let _hangup = signal(SignalKind::hangup())?;
        let daemon = tokio::select! {
            daemon = Daemon::start(config, role, shutdown.clone()) => daemon?,
            // Nothing has been taken yet.
            () = either(&mut terminate, &mut interrupt) => return Ok(DONE),
        };
        let wait = daemon.wait();
        tokio::pin!(wait);
        let stopped = loop {
            tokio::select! {
                stopped = &mut wait => break stopped?,
                () = either(&mut terminate, &mut interrupt) => {
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

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => (),
        _ = interrupt.recv() => (),
    }
}

/// Logs to standard error: for people on a terminal, else one JSON object a line. `RUST_LOG`
/// chooses what.
fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        subscriber.with_target(false).init();
    } else {
        subscriber.json().flatten_event(true).with_current_span(false).init();
    }
}
