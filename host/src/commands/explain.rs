//! The command `explain` says why a message ran or did not run.

use anyhow::anyhow;
use clap::Args;
use loopabull_model::{Routes, TaskName};

use crate::commands::client::Remote;
use crate::commands::failure::{DONE, Failure};
use crate::commands::{block_on, pause, print, print_plain, queues};
use crate::config::Config;
use crate::explain::{Explainer, Explanation};
use crate::journal::Journal;
use crate::observe::arrivals::Arrivals;
use crate::tables;
use crate::tasks::catalog::NOT_INSTALLED;
use crate::tasks::discovery::Discovery;

/// Say why a message ran, or why nothing did
///
/// For the id of a message: whether it arrived, for which tasks it was accepted, and what became of it: rejected, a
/// duplicate, lost, waiting, held by a pause, a dead letter, or done. On RabbitMQ, where it waits is not known. For a topic:
/// which tasks want it and by which pattern; if none does, which patterns nearly match.
///
/// Asks the daemon that uses the state directory. If no daemon is running, reads its files.
///
/// Example: `loopabull-host explain org.fedoraproject.prod.buildsys.build.state.change`
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The id of a message, or a topic
    about: String,
    #[command(flatten)]
    remote: Remote,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(config: &Config, args: &ExplainArgs) -> Result<u8, Failure> {
    let explanation = args.remote.look(
        config,
        |daemon| daemon.get("explain", &[("about", Some(&args.about))]),
        || from_files(config, &args.about),
    )?;
    if args.json {
        let text = serde_json::to_string(&explanation).expect("sentences are only JSON types");
        print(&(text + "\n"))?;
        return Ok(DONE);
    }
    for sentence in &explanation.sentences {
        let run = sentence.run.as_ref().map_or(String::new(), |run| format!(" (run {run})"));
        print_plain(&format!("{}{run}\n", sentence.text))?;
    }
    Ok(DONE)
}

/// Explains without a daemon.
fn from_files(config: &Config, about: &str) -> Result<Explanation, Failure> {
    if !tables::path(&config.state).exists() {
        let error = anyhow!("`{}` contains no journal", config.state.display());
        let hint = "name the daemon's state directory with `--state`";
        return Err(Failure::with_hint(error, hint));
    }
    let (journal, arrivals) =
        (Journal::open_to_read(&config.state)?, Arrivals::open_to_read(&config.state)?);
    let discovery = Discovery::read(config, None);
    let routes = Routes::build(discovery.tasks.iter().cloned());
    let pauses = pause::stored(config)?;
    let names = config.queues(&discovery.tasks);
    let refused = |task: &TaskName| routes.task(task).is_none().then(|| NOT_INSTALLED.to_owned());
    Ok(block_on(async {
        let queues = queues::inspect(config, &names).await?;
        let explainer = Explainer {
            routes: &routes,
            refused,
            pauses: &pauses,
            journal: &journal,
            arrivals: arrivals.as_ref(),
            queues: queues.as_ref(),
        };
        anyhow::Ok(explainer.explain(about).await?)
    })??)
}
