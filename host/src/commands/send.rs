//! The command `send` publishes one message to the queue.

use std::path::Path;

use anyhow::Context;
use clap::Args;
use loopabull_fedmsg::trusted::{Properties, from_bus};
use loopabull_model::Topic;

use crate::clock;
use crate::commands::failure::Failure;
use crate::commands::publisher::{Counts, Publisher};
use crate::commands::recordings::read;
use crate::commands::{block_on, print};
use crate::config::Config;

/// Publish one message to the queue
///
/// The message gets a random id. A running daemon processes it at once; otherwise it waits in the
/// queue. The exit status is 3 if no task subscribes to the topic.
///
/// Example: `loopabull-host send org.example.greeting '{"from": "ada", "text": "hello"}'`
#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// Topic of the message
    #[arg(value_parser = |topic: &str| Topic::try_from(topic))]
    topic: Topic,
    /// Body of the message: a JSON object, or `-` to read it from standard input
    #[arg(value_name = "JSON", default_value = "{}")]
    body: String,
    /// Header of the message (repeatable)
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Print the tasks that would get the message, and publish nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(config: &Config, args: SendArgs) -> Result<u8, Failure> {
    let text = if args.body == "-" { read(Path::new("-"))? } else { args.body };
    let id = uuid::Uuid::new_v4().to_string();
    let properties = Properties {
        topic: Some(args.topic.as_str()),
        message_id: Some(&id),
        headers: &args.headers,
    };
    let message =
        from_bus(&text, properties, Some(clock::now_seconds())).context("cannot make a message")?;
    block_on(async {
        let mut publisher = Publisher::open(config, args.dry_run).await?;
        let mut counts = Counts::default();
        publisher.publish(&message, &mut counts).await?;
        publisher.flush().await?;
        let tasks: Vec<_> =
            publisher.tasks(&message).iter().map(|task| format!("`{}`", task.name)).collect();
        match (tasks.is_empty(), args.dry_run) {
            (true, _) => print(&format!("no task subscribes to topic `{}`\n", message.topic))?,
            (_, true) => (),
            _ => print(&format!("message {} is queued for {}\n", message.id, tasks.join(", ")))?,
        }
        Ok(counts.exit_code())
    })?
}

/// Parses `NAME=VALUE`.
fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}
