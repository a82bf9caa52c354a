//! The command `messages` lists the newest messages from the sources.

use anyhow::anyhow;
use clap::Args;

use crate::commands::failure::{DONE, Failure};
use crate::commands::table::Table;
use crate::commands::{block_on, print, print_plain, time};
use crate::config::Config;
use crate::observe::arrivals::{Arrivals, Which};

/// List the newest messages from the sources, whether or not they ran
///
/// `loopabull-host explain ID` says more about one of them. Messages from `inject`, `send` and tasks, and those that other
/// programs publish into the queues, are not listed.
#[derive(Debug, Args)]
pub(crate) struct MessagesArgs {
    /// Only messages on this topic
    #[arg(long, value_name = "TOPIC", conflicts_with = "message")]
    topic: Option<String>,
    /// Only this message
    #[arg(long, value_name = "ID")]
    message: Option<String>,
    /// Maximum number of messages
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u32,
    /// Print a JSON object for each message
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(config: &Config, args: &MessagesArgs) -> Result<u8, Failure> {
    let Some(arrivals) = Arrivals::open_to_read(&config.state)? else {
        let error = anyhow!("`{}` has no list of arrivals", config.state.display());
        let hint =
            "name the daemon's state directory with `--state`, and see `keep` under `[arrivals]`";
        return Err(Failure::with_hint(error, hint));
    };
    let which = match (&args.topic, &args.message) {
        (Some(topic), _) => Which::OfTopic(topic.clone()),
        (None, Some(message)) => Which::OfMessage(message.clone()),
        (None, None) => Which::All,
    };
    let mut table = Table::new(&["ARRIVED", "FROM", "MESSAGE", "TOPIC", "WHAT BECAME OF IT"]);
    for arrival in block_on(arrivals.list(which, args.limit))?? {
        if args.json {
            let text = serde_json::to_string(&arrival).expect("an arrival has only JSON types");
            print(&(text + "\n"))?;
            continue;
        }
        let known = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        table.push(vec![
            time(arrival.at_ms),
            arrival.source,
            known(arrival.message),
            known(arrival.topic),
            arrival.verdict.to_string(),
        ]);
    }
    if !args.json {
        print_plain(&table.render())?;
    }
    Ok(DONE)
}
