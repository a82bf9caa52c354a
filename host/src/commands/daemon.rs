//! No subcommand: the daemon.

use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::process::Command;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::cli::{DONE, FAILED, Failure};
use crate::commands::block_on;
use crate::config::Config;
use crate::daemon::{Daemon, Role, Stopped};
use crate::shutdown::Shutdown;

/// The variable by which the standard library sizes the stacks of threads whose maker says nothing.
const STACK: &str = "RUST_MIN_STACK";
/// What the thread of the AMQP library may need in bytes, of which it uses what it touches. It reads tables
/// in tables by recursion and without a limit, so that a header of 5 kB ended the daemon; 26,000
/// levels, which is what a frame of 128 KiB can hold, need 400 MB in a debug build.
const STACK_BYTES: &str = "536870912";

pub(crate) fn run(config: &Config, role: Role) -> Result<u8, Failure> {
    let has_amqp = config.amqp_url.is_some() || !config.buses()?.is_empty();
    if has_amqp && std::env::var_os(STACK).is_none() {
        return Err(become_with_stack().into());
    }
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

/// Becomes this same program anew, with larger stacks: they are sized when the first thread is made.
/// Returns only if that fails, with the reason.
#[expect(clippy::disallowed_methods, reason = "no process is started: this one goes on as itself")]
fn become_with_stack() -> anyhow::Error {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    match std::env::current_exe() {
        Ok(program) => {
            let mut command = Command::new(program);
            let error = command.arg0(name).args(arguments).env(STACK, STACK_BYTES).exec();
            anyhow::Error::new(error).context("cannot start anew with larger stacks")
        }
        Err(error) => anyhow::Error::new(error).context("cannot find this program"),
    }
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
