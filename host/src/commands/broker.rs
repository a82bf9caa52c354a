//! The command `broker` shows and creates our queues on RabbitMQ.

use std::sync::Arc;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use loopabull_queue::{Backend, Declaration, Plan};

use crate::commands::failure::{DONE, Failure};
use crate::commands::table::Table;
use crate::commands::{block_on, print, print_plain};
use crate::config::Config;
use crate::tasks::discovery::Discovery;
use crate::work::unknown_tasks::UnknownTasks;

/// Show or create the queues on RabbitMQ
///
/// Each queue needs several queues on the broker: the queue itself, its dead-letter queue, delay queues
/// for retries, and for each task a queue that holds its messages while it is paused or refused. The
/// daemon creates the last kind when it is needed, and the others at start. Use this command to review
/// the changes first, or to create all queues as another RabbitMQ user.
#[derive(Debug, Args)]
pub(crate) struct BrokerArgs {
    #[command(subcommand)]
    command: BrokerCommand,
}

#[derive(Debug, Subcommand)]
enum BrokerCommand {
    /// Show which queues exist, are missing or differ; change nothing
    Plan {
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Create missing queues; leave existing ones unchanged
    Apply,
}

pub(crate) fn run(config: &Config, args: &BrokerArgs) -> Result<u8, Failure> {
    let mut queues = config.queues(&Discovery::read(config, None).tasks);
    UnknownTasks::read(&config.state, &[], &Arc::default()).add_to(&mut queues);
    let Backend::RabbitMq(settings) = &queues.backend else {
        let error = anyhow!("the queue is embedded and has no broker");
        return Err(Failure::with_hint(error, "name the broker with `--amqp-url URL`"));
    };
    let plan = block_on(Plan::of(settings, &queues.queues))??;
    if let BrokerCommand::Plan { json: true } = args.command {
        let text = serde_json::to_string(&plan).expect("a plan contains only JSON types");
        print(&(text + "\n"))?;
        return Ok(DONE);
    }
    let version = plan.version.as_deref().unwrap_or("unknown");
    print(&format!("RabbitMQ {version} at `{}`\n", plan.broker))?;
    let is_plan = matches!(args.command, BrokerCommand::Plan { .. });
    let mut table = Table::new(&["", "QUEUE", "ARGUMENTS"]);
    for change in &plan.changes {
        let sign = match (&change.declaration, is_plan) {
            (Declaration::Missing, true) => "missing",
            (Declaration::Missing, false) => "created",
            (Declaration::Same, _) => "exists",
            (Declaration::Differs { .. }, _) => "differs",
        };
        table.push(vec![sign.to_owned(), change.queue.clone(), change.arguments.clone()]);
    }
    if !is_plan {
        block_on(Plan::apply(settings, &queues.queues))??;
    }
    print(&table.render())?;
    for change in &plan.changes {
        if let Declaration::Differs { reason } = &change.declaration {
            print_plain(&format!("queue `{}` differs: {reason}\n", change.queue))?;
        }
    }
    for warning in &plan.warnings {
        print(&format!("note: {warning}\n"))?;
    }
    Ok(DONE)
}
