//! Tasks that have held entries and are not installed.
//!
//! `/readyz` and the log name these tasks, because nobody runs their messages. RabbitMQ has no list of
//! its queues for clients, so the tasks are remembered in the state directory: the next daemon looks
//! for their held entries by name. This module does not hold or release entries.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use loopabull_model::QueueName;
use loopabull_queue::{Config, HeldTask};

use crate::observe::health::{Health, Part};

/// Maximum number of tasks that a problem names.
const MAX_NAMED: usize = 5;

/// The tasks that have held entries and are not installed.
pub(crate) struct UnknownTasks {
    file: PathBuf,
    tasks: BTreeSet<HeldTask>,
    /// Those of them whose queue has no workers here, so that nobody looks for their held entries.
    elsewhere: BTreeSet<HeldTask>,
    is_written: bool,
    health: Arc<Health>,
}

impl UnknownTasks {
    /// Reads the tasks that earlier daemons remembered. If there is no readable file, there are none.
    /// `queues` are the queues with workers.
    pub(crate) fn read(state: &Path, queues: &[QueueName], health: &Arc<Health>) -> Self {
        let file = state.join("unknown-tasks.json");
        let text = fs::read(&file).unwrap_or_default();
        let tasks: BTreeSet<HeldTask> = serde_json::from_slice(&text).unwrap_or_default();
        let elsewhere = tasks.iter().filter(|(queue, _)| !queues.contains(queue)).cloned();
        let elsewhere = elsewhere.collect();
        Self { file, tasks, elsewhere, is_written: true, health: Arc::clone(health) }
    }

    /// Adds the tasks to the settings of their queues, so that their held entries are looked for.
    pub(crate) fn add_to(&self, config: &mut Config) {
        for (queue, task) in &self.tasks {
            let found = config.queues.iter_mut().find(|config| config.name == *queue);
            if let Some(config) = found
                && !config.tasks.contains(task)
            {
                config.tasks.push(task.clone());
            }
        }
    }

    /// Replaces the tasks. Reports them, and remembers them if they have changed. After an error, the next call
    /// tries to remember them again.
    pub(crate) fn update(&mut self, mut tasks: BTreeSet<HeldTask>) -> io::Result<()> {
        tasks.extend(self.elsewhere.iter().cloned());
        for (queue, task) in tasks.difference(&self.tasks) {
            tracing::error!(
                task.name = %task,
                "task `{task}` is not installed; its messages in queue `{queue}` wait until it is"
            );
        }
        match tasks.is_empty() {
            true => self.health.resolve(&Part::UnknownTasks),
            false => self.health.report(Part::UnknownTasks, problem(&tasks)),
        }
        let is_new = tasks != self.tasks;
        self.tasks = tasks;
        if !is_new && self.is_written {
            return Ok(());
        }
        let written = self.write();
        self.is_written = written.is_ok();
        // A disk that stays full is reported once.
        if is_new { written } else { Ok(()) }
    }

    fn write(&self) -> io::Result<()> {
        let folder = self.file.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&serde_json::to_vec(&self.tasks)?)?;
        file.as_file().sync_all()?;
        file.persist(&self.file)?;
        Ok(())
    }
}

fn problem(tasks: &BTreeSet<HeldTask>) -> String {
    let named: Vec<_> = tasks.iter().take(MAX_NAMED).map(|(_, task)| format!("`{task}`")).collect();
    let others = match tasks.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        others => format!(" and {others} more"),
    };
    format!(
        "messages wait for {}{others}; install the missing tasks, or set `refused_tasks = \"dead-letter\"`",
        named.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables;

    #[test]
    fn tasks_are_reported_and_remembered() {
        let state = tempfile::tempdir().unwrap();
        let health = Arc::new(Health::default());
        let queues = [QueueName::default()];
        let mut unknown = UnknownTasks::read(state.path(), &queues, &health);
        let key = |task: &str| (QueueName::default(), task.try_into().unwrap());
        unknown.update([key("a"), key("b")].into()).unwrap();
        assert!(health.problems()[0].contains("messages wait for `a`, `b`; install"));

        // The queue has no workers in this daemon. The tasks are not forgotten.
        let mut unknown = UnknownTasks::read(state.path(), &[], &health);
        unknown.update(BTreeSet::new()).unwrap();
        assert!(health.problems()[0].contains("messages wait for `a`, `b`; install"));

        let mut unknown = UnknownTasks::read(state.path(), &queues, &health);
        let queues = vec![loopabull_queue::QueueConfig::new("workers".try_into().unwrap())];
        let (file, schema) = (PathBuf::new(), tables::SCHEMA);
        let backend = loopabull_queue::Backend::Embedded { file, schema };
        let mut config = Config { backend, queues };
        unknown.add_to(&mut config);
        assert_eq!(config.queues[0].tasks.len(), 2);
        unknown.update(BTreeSet::new()).unwrap();
        assert!(health.problems().is_empty());
        assert_eq!(UnknownTasks::read(state.path(), &[], &health).tasks.len(), 0);
    }
}
