//! `inject`: messages from files into the queue.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use loopabull_fedmsg::trusted;
use loopabull_model::{Entry, EntryId, Message, Routes};
use loopabull_queue::{Backoff, QueueError, Queues};
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::commands::failure::{DONE, FAILED, Failure};
use crate::commands::{block_on, print};
use crate::config::Config;
use crate::daemon::state_dir;
use crate::tasks::discovery::Listing;

/// How often a broker that does not take an entry is asked again: for some minutes.
const TRIES: u32 = 20;

/// Put recorded messages into the queue, as a source would
///
/// A file holds one JSON document, or one on each line: whole fedmsg bodies, or what datagrepper
/// and `fedora-messaging record` write. A daemon on the same queue works them at once; without one
/// they wait. Signatures are not looked at: whoever can write the state directory can do worse.
#[derive(Debug, Args)]
pub(crate) struct InjectArgs {
    /// Files, or `-` for standard input
    #[arg(required = true, value_name = "MESSAGE.json")]
    files: Vec<PathBuf>,
}

pub(crate) fn run(config: &Config, args: &InjectArgs) -> Result<u8, Failure> {
    let tasks = Listing::read(config).tasks;
    let queues = config.queues(&tasks);
    let routes = Routes::build(tasks);
    state_dir::make(&config.state)?;
    block_on(async {
        let queues = Queues::open(&queues).await?;
        let (mut entries, mut messages, mut bad) = (0_u64, 0_u64, 0_u64);
        for file in &args.files {
            let text = read(file)?;
            for (number, message) in messages_in(&text).enumerate() {
                let message = match message {
                    Ok(message) => message,
                    Err(reason) => {
                        bad += 1;
                        let number = number + 1;
                        print(&format!(
                            "refused: `{}`, document {number}: {reason}\n",
                            file.display()
                        ))?;
                        continue;
                    }
                };
                messages += 1;
                let tasks = routes.resolve(&message.topic);
                if tasks.is_empty() {
                    print(&format!("no task wants topic `{}`\n", message.topic))?;
                }
                for task in tasks {
                    let id = EntryId::new(uuid::Uuid::new_v4().simple().to_string());
                    let entry = Entry::new(id, &task, &message);
                    publish(&queues, &entry).await?;
                    entries += 1;
                }
            }
        }
        print(&format!("{messages} messages, {entries} entries queued, {bad} refused\n"))?;
        Ok(if bad == 0 { DONE } else { FAILED })
    })?
}

/// Publishes, and goes on through a broker that is away for a while: the id tells that it is one.
async fn publish(queues: &Queues, entry: &Entry) -> Result<(), QueueError> {
    let mut backoff = Backoff::default();
    for _ in 0..TRIES {
        match queues.publish(entry).await {
            Err(error) => tracing::warn!("{error}, trying again"),
            done => return done,
        }
        backoff.pause(&CancellationToken::new()).await;
    }
    queues.publish(entry).await
}

/// Reads a file, or standard input if it is called `-`.
pub(crate) fn read(file: &Path) -> anyhow::Result<String> {
    if file.as_os_str() != "-" {
        return std::fs::read_to_string(file)
            .with_context(|| format!("cannot read `{}`", file.display()));
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
    Ok(text)
}

/// Returns the messages of a text, one for each JSON document in it.
pub(crate) fn messages_in(text: &str) -> impl Iterator<Item = Result<Message, String>> {
    serde_json::Deserializer::from_str(text).into_iter::<&RawValue>().map(|document| {
        let document = document.map_err(|error| format!("{error}; the rest was not read"))?;
        trusted::from_recording(document.get().as_bytes())
            .map_err(|rejection| rejection.to_string())
    })
}
