//! The command `failures` lists the failed runs of this host in groups.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use crate::commands::client::Remote;
use crate::commands::failure::{DONE, Failure};
use crate::commands::journal::journal;
use crate::commands::table::Table;
use crate::commands::{block_on, print, print_plain, time};
use crate::config::Config;
use crate::journal::Failures;

/// List failed runs in groups, those with the latest runs first
///
/// The runs of a group have the same task, and their reasons differ only in numbers, names and paths. Of each outcome, the
/// newest 2,000 runs are counted. The dead letters of a group are requeued with `loopabull-host dead-letters requeue --task TASK --like REASON`.
#[derive(Debug, Args)]
pub(crate) struct FailuresArgs {
    /// How far to look back, for example `2h`
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = humantime::parse_duration)]
    since: Duration,
    #[command(flatten)]
    remote: Remote,
    /// Print a JSON object for each group
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(config: &Config, args: &FailuresArgs) -> Result<u8, Failure> {
    let since = humantime::format_duration(args.since).to_string();
    let failures: Failures = args.remote.look(
        config,
        |daemon| daemon.get("failures", &[("since", Some(&since))]),
        || {
            let span = i64::try_from(args.since.as_millis()).unwrap_or(i64::MAX);
            let since_ms = Timestamp::now().as_millisecond().saturating_sub(span);
            Ok(block_on(journal(&config.state)?.failures(since_ms, Duration::MAX))??)
        },
    )?;
    if args.json {
        for group in &failures.groups {
            let text = serde_json::to_string(group).expect("a group contains only JSON types");
            print(&(text + "\n"))?;
        }
        return Ok(DONE);
    }
    let mut table = Table::new(&["RUNS", "TASK", "LAST FAILURE", "ITS ID", "REASON"]);
    for group in &failures.groups {
        table.push(vec![
            group.count.to_string(),
            group.task.to_string(),
            time(group.last_ms),
            group.last.to_string(),
            group.reason.clone(),
        ]);
    }
    print_plain(&table.render())?;
    if failures.is_partial {
        print(
            "the list is not complete: older runs were not counted; a shorter `--since` gives exact counts\n",
        )?;
    }
    Ok(DONE)
}
