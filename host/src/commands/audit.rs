//! The command `audit` lists what operators did. The commands that act record their actions here.

use clap::Args;
use rustix::process::getuid;

use crate::api::ActionList;
use crate::commands::client::{Remote, sudo_user};
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
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    #[command(flatten)]
    remote: Remote,
    /// Print a JSON object for each line
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(config: &Config, args: &AuditArgs) -> Result<u8, Failure> {
    let limit = args.limit.to_string();
    let list: ActionList = args.remote.look(
        config,
        |daemon| daemon.get("audit", &[("limit", Some(&limit))]),
        || {
            let actions = match Audit::open_to_read(&config.state)? {
                Some(audit) => block_on(audit.list(None, args.limit))??,
                None => Vec::new(),
            };
            Ok(ActionList { actions, next: None })
        },
    )?;
    let mut table = Table::new(&["WHEN", "WHO", "ACTION", "TARGET", "COUNT"]);
    for action in list.actions {
        if args.json {
            let text = serde_json::to_string(&action).expect("an action has only JSON types");
            print(&(text + "\n"))?;
        } else {
            let count = action.count.map_or("not known".to_owned(), |count| count.to_string());
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
    Ok(block_on(audit.record(&who(), action, target, count))??)
}

/// Records an action that begins now. `act` carries it out, and returns how many things it changed.
pub(super) fn record_around<T>(
    audit: &Audit,
    action: &'static str,
    target: &str,
    act: impl FnOnce() -> Result<(u64, T), Failure>,
) -> Result<T, Failure> {
    let begun = block_on(audit.begin(&who(), action, target))??;
    let (count, done) = act()?;
    block_on(audit.finish(&begun, count))??;
    Ok(done)
}

fn who() -> String {
    // sudo names the user who called it.
    let sudo = sudo_user().map_or(String::new(), |user| format!(", by sudo of user {user}"));
    format!("command of user {}{sudo}", getuid().as_raw())
}
