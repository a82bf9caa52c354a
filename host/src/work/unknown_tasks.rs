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

use loopabull_queue::{Config, HeldTask};

use crate::observe::health::{Health, Part};

/// Maximum number of tasks that a problem names.
const MAX_NAMED: usize = 5;

/// The tasks that have held entries and are not installed.
pub(crate) struct UnknownTasks {
    file: PathBuf,
    tasks: BTreeSet<HeldTask>,
    health: Arc<Health>,
}

impl UnknownTasks {
    /// Reads the tasks that earlier daemons remembered. If there is no readable file, there are none.
    pub(crate) fn read(state: &Path, health: &Arc<Health>) -> Self {
        let file = state.join("unknown-tasks.json");
        let text = fs::read(&file).unwrap_or_default();
        let tasks = serde_json::from_slice(&text).unwrap_or_default();
        Self { file, tasks, health: Arc::clone(health) }
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

    /// Replaces the tasks. Reports them, and remembers them if they have changed.
    pub(crate) fn update(&mut self, tasks: BTreeSet<HeldTask>) -> io::Result<()> {
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
        if tasks != self.tasks {
            self.write(&tasks)?;
            self.tasks = tasks;
        }
        Ok(())
    }

    fn write(&self, tasks: &BTreeSet<HeldTask>) -> io::Result<()> {
        let folder = self.file.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&serde_json::to_vec(tasks)?)?;
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

    #[test]
    fn tasks_are_reported_and_remembered() {
        let state = tempfile::tempdir().unwrap();
        let health = Arc::new(Health::default());
        let mut unknown = UnknownTasks::read(state.path(), &health);
        let key = |task: &str| ("workers".try_into().unwrap(), task.try_into().unwrap());
        unknown.update([key("a"), key("b")].into()).unwrap();
        assert!(health.problems()[0].contains("messages wait for `a`, `b`; install"));

        let mut unknown = UnknownTasks::read(state.path(), &health);
        let queues = vec![loopabull_queue::QueueConfig::new("workers".try_into().unwrap())];
        let backend = loopabull_queue::Backend::Embedded { file: PathBuf::new() };
        let mut config = Config { backend, queues };
        unknown.add_to(&mut config);
        assert_eq!(config.queues[0].tasks.len(), 2);
        unknown.update(BTreeSet::new()).unwrap();
        assert!(health.problems().is_empty());
        assert_eq!(UnknownTasks::read(state.path(), &health).tasks.len(), 0);
    }
}
