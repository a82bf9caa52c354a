//! Publishes messages of the operator to the queue, for the commands `inject` and `send`.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::anyhow;
use loopabull_model::{Entry, EntryId, Message, Routes, Task, Topic, chain};
use loopabull_queue::{Backoff, QueueError, Queues};
use tokio_util::sync::CancellationToken;

use crate::commands::failure::{DONE, FAILED, Failure, NO_TASK};
use crate::commands::{note, print, queues};
use crate::config::Config;
use crate::daemon::state_dir;
use crate::tasks::discovery::Discovery;

/// Number of attempts to publish an entry before the last attempt. With back-off, they take about
/// three minutes.
const PUBLISH_ATTEMPTS: u32 = 20;

/// The result of publishing messages.
#[derive(Default)]
pub(crate) struct Counts {
    pub messages: u64,
    pub entries: u64,
    pub rejected: u64,
    /// The topics to which no task subscribes, with the number of their messages.
    pub without_task: BTreeMap<Topic, u64>,
}

/// Number of entries that are published together.
const GROUP: usize = 256;

/// The place to which messages are published.
pub(crate) struct Publisher {
    routes: Routes,
    /// `None` for a dry run.
    queues: Option<Queues>,
    /// Entries that are not published yet.
    waiting: Vec<Entry>,
}

impl Counts {
    pub(crate) fn exit_code(&self) -> u8 {
        match (self.rejected, self.without_task.is_empty()) {
            (1.., _) => FAILED,
            (0, false) => NO_TASK,
            (0, true) => DONE,
        }
    }
}

impl Publisher {
    /// Reads the tasks, and opens the queues if the run is not dry.
    pub(crate) async fn open(config: &Config, is_dry: bool) -> Result<Self, Failure> {
        let discovery = Discovery::read(config, None);
        if let Some((folder, reason)) = discovery.unknown_dir() {
            let error =
                anyhow!("cannot know which tasks want a message: `{}`: {reason}", folder.display());
            return Err(Failure::with_hint(
                error,
                "check `tasks` and `playbooks` in the configuration, or run the command as the user of the daemon",
            ));
        }
        let tasks = discovery.tasks;
        let queues = config.queues(&tasks);
        let routes = Routes::build(tasks);
        if is_dry {
            return Ok(Self { routes, queues: None, waiting: Vec::new() });
        }
        state_dir::make(&config.state)?;
        let queues = Some(queues::open(config, &queues).await?);
        Ok(Self { routes, queues, waiting: Vec::new() })
    }

    pub(crate) fn tasks(&self, message: &Message) -> Vec<Arc<Task>> {
        self.routes.resolve(&message.topic)
    }

    /// Publishes an entry for each task that subscribes to the message, at the latest with the next
    /// [`Publisher::flush`]. A dry run prints the tasks.
    pub(crate) async fn publish(
        &mut self,
        message: &Message,
        counts: &mut Counts,
    ) -> Result<(), Failure> {
        counts.messages += 1;
        let tasks = self.tasks(message);
        if tasks.is_empty() {
            *counts.without_task.entry(message.topic.clone()).or_default() += 1;
        }
        for task in tasks {
            if self.queues.is_none() {
                print(&format!("message {}: task `{}`\n", message.id, task.name))?;
            }
            let id = EntryId::new(uuid::Uuid::now_v7().simple().to_string());
            self.waiting.push(Entry::new(id, &task, message));
            counts.entries += 1;
        }
        if self.waiting.len() >= GROUP {
            self.flush().await?;
        }
        Ok(())
    }

    /// Publishes the entries that wait.
    pub(crate) async fn flush(&mut self) -> Result<(), Failure> {
        let entries = std::mem::take(&mut self.waiting);
        let Some(queues) = &self.queues else { return Ok(()) };
        let published = queues.publish_all(&entries.iter().collect::<Vec<_>>()).await;
        for (entry, published) in entries.iter().zip(published) {
            if published.is_err() {
                publish(queues, entry).await?;
            }
        }
        Ok(())
    }
}

/// Publishes an entry. Retries with back-off, for example while the broker is unavailable. Every
/// attempt uses the same entry id, so the queue or the host that runs them recognises a second one.
async fn publish(queues: &Queues, entry: &Entry) -> Result<(), QueueError> {
    let mut backoff = Backoff::default();
    for _ in 0..PUBLISH_ATTEMPTS {
        match queues.publish(entry).await {
            Err(error) => note(&format!("cannot publish an entry: {}; retrying", chain(error))),
            done => return done,
        }
        backoff.pause(&CancellationToken::new()).await;
    }
    queues.publish(entry).await
}
