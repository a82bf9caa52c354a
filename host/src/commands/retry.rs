//! The command `retry` ends the delays of messages that wait for their next attempt.

use anyhow::anyhow;
use clap::Args;
use hyper::StatusCode;
use loopabull_model::QueueName;

use crate::api::{Done, RetryRequest, due};
use crate::commands::client::{ClientError, Remote};
use crate::commands::failure::{DONE, Failure};
use crate::commands::{audit, block_on, print, print_plain, queues};
use crate::config::Config;
use crate::observe::status::Status;
use crate::tasks::discovery::Discovery;

const NO_QUEUE: &str = "list the queues with `loopabull-host status`";

/// Retry delayed messages now
///
/// Messages whose task failed wait for their next attempt, for 10 s to 7 days. This command ends their
/// waiting, for example after the reason of the failures is mended. Their attempts are still counted.
#[derive(Debug, Args)]
pub(crate) struct RetryArgs {
    /// Only the messages of this queue
    #[arg(long, value_name = "NAME")]
    queue: Option<QueueName>,
    #[command(flatten)]
    remote: Remote,
}

pub(crate) fn run(config: &Config, args: &RetryArgs) -> Result<u8, Failure> {
    let Some(daemon) = args.remote.wait_for(config)? else {
        return without_daemon(config, args);
    };
    let queues = match &args.queue {
        Some(queue) => vec![queue.clone()],
        None => {
            let status: Status = daemon.get("status", &[]).map_err(ClientError::into_failure)?;
            status.queues.into_iter().map(|queue| queue.name).collect()
        }
    };
    for queue in queues {
        let done = daemon.post("retry", &RetryRequest { queue });
        let Done { said, .. } = done.map_err(|error: ClientError| match error.status() {
            Some(StatusCode::NOT_FOUND) => Failure::with_hint(error, NO_QUEUE),
            _ => error.into_failure(),
        })?;
        print_plain(&(said + "\n"))?;
    }
    Ok(DONE)
}

fn without_daemon(config: &Config, args: &RetryArgs) -> Result<u8, Failure> {
    let queues = config.queues(&Discovery::read(config, None).tasks);
    let mut names: Vec<QueueName> = queues.queues.iter().map(|queue| queue.name.clone()).collect();
    if let Some(name) = &args.queue {
        names.retain(|known| known == name);
        if names.is_empty() {
            return Err(Failure::with_hint(anyhow!("there is no queue `{name}`"), NO_QUEUE));
        }
    }
    let audit = audit::open(config)?;
    let open = block_on(queues::inspect(config, &queues))??;
    for name in names {
        let count = audit::record_around(&audit, "retry", &format!("queue `{name}`"), || {
            let count = match &open {
                Some(open) => block_on(open.end_delays(&name))??,
                None => 0,
            };
            Ok((count, count))
        })?;
        print(&(due(&name, count) + "\n"))?;
    }
    Ok(DONE)
}
