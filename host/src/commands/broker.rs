//! `broker`: what our queues need to stand on RabbitMQ.

use anyhow::anyhow;
use clap::{Args, Subcommand};
use loopabull_queue::{Backend, Declaration, Plan, Queues};

use crate::commands::failure::{DONE, Failure};
use crate::commands::table::Table;
use crate::commands::{block_on, print, print_plain};
use crate::config::Config;
use crate::tasks::discovery::Listing;

/// Show or make the queues on RabbitMQ
///
/// For each queue of ours there are several on the broker: itself, its dead letters, and those in
/// which retries wait. A daemon makes what is missing; this is for whoever wants to see it first, or
/// to make it with another user than the daemon's.
#[derive(Debug, Args)]
pub(crate) struct BrokerArgs {
    #[command(subcommand)]
    command: BrokerCommand,
}

#[derive(Debug, Subcommand)]
enum BrokerCommand {
    /// Show what is there, what is missing and what differs; change nothing
    Plan {
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Make what is missing; what differs stays as it is
    Apply,
}

pub(crate) fn run(config: &Config, args: &BrokerArgs) -> Result<u8, Failure> {
    let queues = config.queues(&Listing::read(config).tasks);
    let Backend::RabbitMq(settings) = &queues.backend else {
        let error = anyhow!("the queues are in the state directory, not on a broker");
        return Err(Failure::with_hint(error, "name the RabbitMQ with `--amqp-url`"));
    };
    let plan = block_on(Plan::of(settings, &queues.queues))??;
    if let BrokerCommand::Plan { json: true } = args.command {
        let text = serde_json::to_string(&plan).expect("a plan is made of JSON types");
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
            (Declaration::Missing, false) => "made",
            (Declaration::Same, _) => "there",
            (Declaration::Differs { .. }, _) => "differs",
        };
        table.push(vec![sign.to_owned(), change.queue.clone(), change.arguments.clone()]);
    }
    if !is_plan {
        block_on(Queues::open(&queues))??;
    }
    print(&table.render())?;
    for change in &plan.changes {
        if let Declaration::Differs { reason } = &change.declaration {
            print_plain(&format!("differs: `{}`: {reason}\n", change.queue))?;
        }
    }
    for warning in &plan.warnings {
        print(&format!("note: {warning}\n"))?;
    }
    Ok(DONE)
}
