//! The command `inject` publishes recorded messages to the queue.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use loopabull_fedmsg::trusted;
use loopabull_model::{Entry, EntryId, Message, Routes, chain};
use loopabull_queue::{Backoff, QueueError, Queues};
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::commands::failure::{DONE, FAILED, Failure};
use crate::commands::{block_on, print};
use crate::config::Config;
use crate::daemon::state_dir;
use crate::tasks::discovery::Discovery;

/// Number of attempts to publish an entry before the last attempt. With back-off, they take about
/// three minutes.
const PUBLISH_ATTEMPTS: u32 = 20;

/// Publish recorded messages to the queue
///
/// A file contains one or more JSON documents. Each document is a complete fedmsg body, or a
/// message in the format of datagrepper or of `fedora-messaging record`. A running daemon processes
/// the messages at once; otherwise they wait in the queue. Signatures are not checked, because a
/// user with access to the state directory can start tasks anyway.
///
/// Example: `loopabull-host inject recorded.json`
#[derive(Debug, Args)]
pub(crate) struct InjectArgs {
    /// Files of messages, or `-` for standard input
    #[arg(required = true, value_name = "MESSAGE.json")]
    files: Vec<PathBuf>,
}

pub(crate) fn run(config: &Config, args: &InjectArgs) -> Result<u8, Failure> {
    let tasks = Discovery::read(config, None).tasks;
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
                            "rejected: `{}`, document {number}: {reason}\n",
                            file.display()
                        ))?;
                        continue;
                    }
                };
                messages += 1;
                let tasks = routes.resolve(&message.topic);
                if tasks.is_empty() {
                    print(&format!("no task subscribes to topic `{}`\n", message.topic))?;
                }
                for task in tasks {
                    let id = EntryId::new(uuid::Uuid::new_v4().simple().to_string());
                    let entry = Entry::new(id, &task, &message);
                    publish(&queues, &entry).await?;
                    entries += 1;
                }
            }
        }
        print(&format!("{messages} messages, {entries} entries queued, {bad} rejected\n"))?;
        Ok(if bad == 0 { DONE } else { FAILED })
    })?
}

/// Publishes an entry. Retries with back-off, for example while the broker is unavailable. Every
/// attempt uses the same entry id, so the queue deduplicates them.
async fn publish(queues: &Queues, entry: &Entry) -> Result<(), QueueError> {
    let mut backoff = Backoff::default();
    for _ in 0..PUBLISH_ATTEMPTS {
        match queues.publish(entry).await {
            Err(error) => tracing::warn!("cannot publish an entry: {}; retrying", chain(error)),
            done => return done,
        }
        backoff.pause(&CancellationToken::new()).await;
    }
    queues.publish(entry).await
}

/// Reads a file, or standard input if the path is `-`.
pub(crate) fn read(file: &Path) -> anyhow::Result<String> {
    if file.as_os_str() != "-" {
        return std::fs::read_to_string(file)
            .with_context(|| format!("cannot read `{}`", file.display()));
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
    Ok(text)
}

/// Returns one message for each JSON document in the text.
pub(crate) fn messages_in(text: &str) -> impl Iterator<Item = Result<Message, String>> {
    serde_json::Deserializer::from_str(text).into_iter::<&RawValue>().map(|document| {
        let document =
            document.map_err(|error| format!("{error}; the rest of the file was not read"))?;
        trusted::from_recording(document.get().as_bytes())
            .map_err(|rejection| rejection.to_string())
    })
}
