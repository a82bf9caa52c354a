//! The command `runs again` repeats a run.

use std::path::PathBuf;

use clap::Args;
use hyper::StatusCode;
use loopabull_model::{Message, Routes, RunId};

use crate::api::{AgainRequest, Done};
use crate::commands::client::{ClientError, Remote};
use crate::commands::failure::{DONE, Failure};
use crate::commands::journal::journal;
use crate::commands::recordings::read;
use crate::commands::{audit, block_on, print, print_plain, queues};
use crate::compare::{escape_in_json, pretty};
use crate::config::Config;
use crate::percent::encoded;
use crate::tasks::discovery::Discovery;
use crate::work::again::{self, AgainError};

/// Repeat a run, with its message or with an edited copy of it
///
/// You can repeat failed and successful runs. The message joins the end of the task's queue and runs with the current
/// version of the task. The original stays: a pending retry still runs. A dead letter is either requeued without
/// repeating its run, or dropped afterwards. `runs show` of the repetition names the original run, and the page of the
/// original lists the repetitions that ran on this host.
///
/// An edited copy is not signed, and has the headers and the topic of the original.
///
/// Example: `loopabull-host runs again ID --print > body.json`, edit the file, and then
/// `loopabull-host runs again ID --body body.json`
#[derive(Debug, Args)]
pub(crate) struct AgainArgs {
    /// Id of the run, from `runs list`
    id: String,
    /// Replace the body of the message by the JSON object in this file, or in standard input (`-`)
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// Print the body of the message with sorted keys, and repeat nothing
    #[arg(long, conflicts_with = "body")]
    print: bool,
}

pub(super) fn run(config: &Config, remote: &Remote, args: &AgainArgs) -> Result<u8, Failure> {
    let id = RunId::new(&args.id);
    if args.print {
        let path = format!("runs/{}/message", encoded(&args.id));
        let message: Message = remote.look(
            config,
            |daemon| daemon.get(&path, &[]),
            || block_on(again::message(&journal(&config.state)?, &id))?.map_err(failure),
        )?;
        print(&(escape_in_json(&pretty(&message.body)) + "\n"))?;
        return Ok(DONE);
    }
    let body = args.body.as_deref().map(read).transpose()?;
    let Some(daemon) = remote.wait_for(config)? else {
        return without_daemon(config, &id, body.as_deref());
    };
    let done = daemon.post("runs/again", &AgainRequest { run: id, body });
    let Done { said, .. } = done.map_err(|error: ClientError| {
        let hint = match error.status() {
            Some(StatusCode::NOT_FOUND) => NO_RUN,
            Some(StatusCode::CONFLICT) => NO_MESSAGE,
            Some(StatusCode::BAD_REQUEST) => BAD_BODY,
            _ => return error.into_failure(),
        };
        Failure::with_hint(error, hint)
    })?;
    print_plain(&(said + "\n"))?;
    Ok(DONE)
}

fn without_daemon(config: &Config, id: &RunId, body: Option<&str>) -> Result<u8, Failure> {
    let journal = journal(&config.state)?;
    let discovery = Discovery::read(config, None);
    let settings = config.queues(&discovery.tasks);
    let routes = Routes::build(discovery.tasks);
    let entry = block_on(again::entry(&journal, &routes, id, body))?.map_err(failure)?;
    // It is recorded before it is done, so that nothing is done that cannot be recorded.
    let audit = audit::open(config)?;
    audit::record(&audit, "run again", &format!("run `{id}`: message `{}`", entry.message.id), 1)?;
    block_on(async { queues::open(config, &settings).await?.publish(&entry).await })??;
    print(&format!("message {} is queued for `{}`\n", entry.message.id, entry.task))?;
    Ok(DONE)
}

const NO_RUN: &str = "list recent runs with `loopabull-host runs list`";
const NO_MESSAGE: &str = "look for another run of the message with `loopabull-host runs list --message ID`, and for the task with `loopabull-host tasks`";
const BAD_BODY: &str = "begin with the output of `loopabull-host runs again ID --print`";

fn failure(error: AgainError) -> Failure {
    let hint = match &error {
        AgainError::NoRun(_) => NO_RUN,
        AgainError::NoMessage(_) | AgainError::NoTask(_) => NO_MESSAGE,
        AgainError::Body(_) => BAD_BODY,
        AgainError::Journal(_) => "run the command as the user of the daemon",
    };
    Failure::with_hint(error, hint)
}
