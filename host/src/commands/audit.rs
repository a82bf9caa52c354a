//! The command `audit` lists what operators did. The commands that act record their actions here.

use clap::Args;
use rustix::process::{geteuid, getuid};

use crate::commands::failure::{DONE, Failure};
use crate::commands::table::Table;
use crate::commands::{block_on, print, print_plain, time};
use crate::config::Config;
use crate::daemon::state_dir;
use crate::work::audit::Audit;

/// List what operators did on this host, newest first
///
/// Each action is a line, whether it came from a command or from the operator's port: who, what, to what, and how many.
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// Maximum number of lines
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u32,
    /// Print a JSON object for each line
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(config: &Config, args: &AuditArgs) -> Result<u8, Failure> {
    let Some(audit) = Audit::open_to_read(&config.state)? else { return Ok(DONE) };
    let actions = block_on(audit.list(args.limit))??;
    let mut table = Table::new(&["WHEN", "WHO", "ACTION", "TARGET", "COUNT"]);
    for action in actions {
        if args.json {
            let text = serde_json::to_string(&action).expect("an action has only JSON types");
            print(&(text + "\n"))?;
        } else {
            let count = action.count.to_string();
            table.push(vec![time(action.at_ms), action.who, action.action, action.target, count]);
        }
    }
    if !args.json {
        print_plain(&table.render())?;
    }
    Ok(DONE)
}

/// Opens the log, before an action.
pub(super) fn open(config: &Config) -> Result<Audit, Failure> {
    state_dir::make(&config.state)?;
    Ok(Audit::open(&config.state)?)
}

/// Records an action of the user who runs this command.
pub(super) fn record(
    audit: &Audit,
    action: &'static str,
    target: &str,
    count: u64,
) -> Result<(), Failure> {
    // sudo names the user who called it.
    let sudo = std::env::var("SUDO_UID").ok().filter(|_| geteuid().is_root());
    let sudo = sudo.map_or(String::new(), |user| format!(", by sudo of user {user}"));
    let who = format!("command of user {}{sudo}", getuid().as_raw());
    Ok(block_on(audit.record(&who, action, target, count))??)
}
