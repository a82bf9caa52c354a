//! The command `retry` ends the delays of messages that wait for their next attempt.

use anyhow::anyhow;
use clap::Args;
use loopabull_model::QueueName;
use loopabull_queue::QueueError;

use crate::commands::failure::{DONE, Failure};
use crate::commands::{audit, block_on, print, queues};
use crate::config::Config;
use crate::tasks::discovery::Discovery;

/// Retry delayed messages now
///
/// Messages whose task failed wait for their next attempt, for 10 s to 7 days. This command ends their
/// waiting, for example after the reason of the failures is mended. Their attempts are still counted.
#[derive(Debug, Args)]
pub(crate) struct RetryArgs {
    /// Only the messages of this queue
    #[arg(long, value_name = "NAME")]
    queue: Option<QueueName>,
}

pub(crate) fn run(config: &Config, args: &RetryArgs) -> Result<u8, Failure> {
    let queues = config.queues(&Discovery::read(config, None).tasks);
    let mut names: Vec<QueueName> = queues.queues.iter().map(|queue| queue.name.clone()).collect();
    if let Some(name) = &args.queue {
        names.retain(|known| known == name);
        if names.is_empty() {
            let error = anyhow!("there is no queue `{name}`");
            return Err(Failure::with_hint(error, "list the queues with `loopabull-host status`"));
        }
    }
    let audit = audit::open(config)?;
    let counts = block_on(async {
        let open = queues::inspect(config, &queues).await?;
        let mut counts = Vec::new();
        for name in names {
            let count = match &open {
                Some(open) => open.end_delays(&name).await?,
                None => 0,
            };
            counts.push((name, count));
        }
        Ok::<_, QueueError>(counts)
    })??;
    for (name, count) in counts {
        audit::record(&audit, "retry", &format!("queue `{name}`"), count)?;
        let messages = if count == 1 { "message is" } else { "messages are" };
        print(&format!("queue `{name}`: {count} delayed {messages} due now\n"))?;
    }
    Ok(DONE)
}
