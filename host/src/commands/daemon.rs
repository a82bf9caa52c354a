//! Runs the daemon. loopabull-host without a subcommand calls this module.
//!
//! Starts logging, and turns SIGTERM and SIGINT into the two steps of a shutdown.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::commands::block_on;
use crate::commands::failure::{DONE, FAILED, Failure};
use crate::config::{Config, Role};
use crate::daemon::{Daemon, Stopped};
use crate::observe::log;
use crate::shutdown::Shutdown;

pub(crate) fn run(config: &Config, role: Role) -> Result<u8, Failure> {
    let _log = log::start();
    raise_descriptor_limit();
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

/// Raises the soft limit of file descriptors to the hard limit. The usual soft limit of 1024 is for
/// programs that use select(2).
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!("cannot raise the limit of file descriptors: {error}");
    }
}
