//! The command `inject` publishes recorded messages to the queue.

use std::path::PathBuf;

use clap::Args;

use crate::commands::failure::Failure;
use crate::commands::publisher::{Counts, Publisher};
use crate::commands::recordings::{self, read};
use crate::commands::{block_on, counted, print};
use crate::config::Config;

/// Publish recorded messages to the queue
///
/// A file contains one or more JSON documents. Each document is a complete fedmsg body, a message
/// in the format of datagrepper or of `fedora-messaging record`, an array of these, or an answer of
/// datagrepper. A running daemon processes the messages at once; otherwise they wait in the queue.
/// Signatures are not checked, because a user with access to the state directory can start tasks
/// anyway.
///
/// The exit status is 1 if a message was rejected, and 3 if no task subscribes to the topic of a
/// message.
///
/// Example: `loopabull-host inject recorded.json`
#[derive(Debug, Args)]
pub(crate) struct InjectArgs {
    /// Files of messages, or `-` for standard input
    #[arg(required = true, value_name = "MESSAGE.json")]
    files: Vec<PathBuf>,
    /// Print the tasks that would get each message, and publish nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(config: &Config, args: &InjectArgs) -> Result<u8, Failure> {
    block_on(async {
        let mut publisher = Publisher::open(config, args.dry_run).await?;
        let mut counts = Counts::default();
        let published = publish_all(&args.files, &mut publisher, &mut counts).await;
        // After an error in a file, what was read before is published.
        publisher.flush().await?;
        published?;
        for (topic, count) in &counts.without_task {
            let messages = counted(*count, "message", "messages");
            print(&format!("no task subscribes to topic `{topic}` ({messages})\n"))?;
        }
        let verb = if args.dry_run { "to queue" } else { "queued" };
        let messages = counted(counts.messages, "message", "messages");
        let entries = counted(counts.entries, "entry", "entries");
        let rejected = counts.rejected;
        print(&format!("{messages}, {entries} {verb}, {rejected} rejected\n"))?;
        Ok(counts.exit_code())
    })?
}

async fn publish_all(
    files: &[PathBuf],
    publisher: &mut Publisher,
    counts: &mut Counts,
) -> Result<(), Failure> {
    for file in files {
        let text = read(file)?;
        for (number, message) in recordings::messages(&text).enumerate() {
            match message {
                Ok(message) => publisher.publish(&message, counts).await?,
                Err(reason) => {
                    counts.rejected += 1;
                    let (file, number) = (file.display(), number + 1);
                    print(&format!("rejected: `{file}`, message {number}: {reason}\n"))?;
                }
            }
        }
    }
    Ok(())
}
