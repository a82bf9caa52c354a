//! The command `messages` lists the newest messages from the sources.

use anyhow::anyhow;
use clap::Args;

use crate::api::ArrivalList;
use crate::commands::client::Remote;
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
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    #[command(flatten)]
    remote: Remote,
    /// Print a JSON object for each message
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(config: &Config, args: &MessagesArgs) -> Result<u8, Failure> {
    let limit = args.limit.to_string();
    let parameters = [
        ("id", args.message.as_deref()),
        ("topic", args.topic.as_deref()),
        ("limit", Some(limit.as_str())),
    ];
    let list = args.remote.look(
        config,
        |daemon| daemon.get("messages", &parameters),
        || from_files(config, args),
    )?;
    let mut table = Table::new(&["ARRIVED", "FROM", "MESSAGE", "TOPIC", "WHAT BECAME OF IT"]);
    for noted in list.arrivals {
        if args.json {
            let text = serde_json::to_string(&noted).expect("an arrival has only JSON types");
            print(&(text + "\n"))?;
            continue;
        }
        let arrival = noted.arrival;
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

fn from_files(config: &Config, args: &MessagesArgs) -> Result<ArrivalList, Failure> {
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
    let arrivals = block_on(arrivals.list(which, None, args.limit))??;
    Ok(ArrivalList { arrivals, next: None })
}
