//! The queues: their settings in the file, and their workers.

use std::collections::BTreeMap;
use std::time::Duration;

use loopabull_model::{QueueName, Task, TaskKind};
use loopabull_queue::QueueConfig;
use serde::Deserialize;

/// Maximum default of `prefetch`.
const MAX_PREFETCH: u16 = 32;
/// Time that the messages of a default `prefetch` take at most, if each one takes the whole timeout of its task.
const MAX_WINDOW: Duration = Duration::from_mins(10);

/// A queue other than `workers`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NamedQueue {
    /// Number of workers for the queue. With one worker, this host processes the messages of the
    /// queue one at a time.
    pub workers: u32,
    /// Whether all hosts together process the messages of the queue one at a time. Only one worker
    /// consumes the queue. If the connection of that worker ends, a worker of another host takes
    /// over.
    pub exclusive_order: bool,
    /// Maximum number of messages that one worker has received and not settled. Default: as for the queue `workers`.
    pub prefetch: Option<u16>,
}

/// A queue and the number of its workers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StaffedQueue {
    pub config: QueueConfig,
    pub workers: u32,
}

/// Returns the default queue and the named queues with the numbers of their workers. The default queue is first. A queue
/// that only a task names has one worker.
pub(super) fn staff<'a>(
    default: NamedQueue,
    mut named: BTreeMap<QueueName, NamedQueue>,
    consumer_timeout: Option<Duration>,
    tasks: impl IntoIterator<Item = &'a Task>,
) -> Vec<StaffedQueue> {
    let mut tasks_of = BTreeMap::<_, Vec<_>>::new();
    for task in tasks {
        let queue = &task.manifest.queue;
        named.entry(queue.clone()).or_default();
        tasks_of.entry(queue.clone()).or_default().push(task);
    }
    named.remove(&QueueName::default());
    let window = consumer_timeout.map_or(MAX_WINDOW, |timeout| MAX_WINDOW.min(timeout / 2));
    let queues = std::iter::once((QueueName::default(), default)).chain(named);
    let staffed = queues.map(|(name, queue)| {
        let NamedQueue { workers, exclusive_order, prefetch } = queue;
        let tasks = tasks_of.remove(&name).unwrap_or_default();
        let prefetch = prefetch.unwrap_or_else(|| default_prefetch(&tasks, window));
        let tasks = tasks.iter().map(|task| task.name.clone()).collect();
        StaffedQueue { config: QueueConfig { name, exclusive_order, prefetch, tasks }, workers }
    });
    staffed.collect()
}

impl Default for NamedQueue {
    fn default() -> Self {
        Self { workers: 1, exclusive_order: false, prefetch: None }
    }
}

/// Returns the default prefetch of a queue with these tasks, whose messages take at most the time `window`.
fn default_prefetch(tasks: &[&Task], window: Duration) -> u16 {
    let is_component = |task: &&Task| task.kind == TaskKind::Component;
    let longest = tasks.iter().map(|task| task.timeout()).max().unwrap_or(window);
    match tasks.iter().all(is_component) {
        true => {
            let fitting = window.as_millis() / longest.as_millis().max(1);
            u16::try_from(fitting).unwrap_or(MAX_PREFETCH).clamp(1, MAX_PREFETCH)
        }
        false => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, ConfigError};

    #[test]
    fn a_queue_that_only_a_manifest_names_has_one_worker() {
        let config: Config = toml::from_str("[queues.fast]\nworkers = 3").unwrap();
        let task = |queue: &str| Task {
            name: queue.try_into().unwrap(),
            kind: TaskKind::Playbook,
            manifest: loopabull_model::Manifest {
                queue: queue.try_into().unwrap(),
                ..Default::default()
            },
        };
        let tasks = [task("slow"), task("workers"), task("fast")];
        let queues = config.staffed_queues(&tasks);
        let found: Vec<_> =
            queues.iter().map(|queue| (queue.config.name.as_str(), queue.workers)).collect();
        assert_eq!(found, [("workers", 5), ("fast", 3), ("slow", 1)]);
    }

    #[test]
    fn a_worker_has_several_components_in_flight_and_one_playbook() {
        let task = |name: &str, kind, timeout: &str| {
            let manifest =
                toml::from_str(&format!("limits.timeout = '{timeout}'\nqueue = '{name}'"));
            Task { name: "t".try_into().unwrap(), kind, manifest: manifest.unwrap() }
        };
        let component = |name: &str, timeout: &str| task(name, TaskKind::Component, timeout);
        let tasks = [
            component("fast", "1s"),
            component("some", "30s"),
            component("some", "1s"),
            component("slow", "1h"),
            component("mixed", "1s"),
            task("mixed", TaskKind::Playbook, "1s"),
            component("set", "1s"),
        ];
        let config: Config = toml::from_str("queues.set.prefetch = 7").unwrap();
        let queues = config.staffed_queues(&tasks);
        let found: Vec<_> = queues
            .iter()
            .map(|queue| (queue.config.name.as_str(), queue.config.prefetch))
            .collect();
        let expected =
            [("workers", 1), ("fast", 32), ("mixed", 1), ("set", 7), ("slow", 1), ("some", 20)];
        assert_eq!(found, expected);
        let config: Config = toml::from_str("consumer_timeout = '2m'").unwrap();
        let queues = config.staffed_queues(&tasks[1..2]);
        assert_eq!(queues[1].config.prefetch, 2);
        for text in ["prefetch = 0", "queues.a.prefetch = 0", "prefetch = 1001"] {
            let config: Config = toml::from_str(text).unwrap();
            assert!(matches!(config.validate(), Err(ConfigError::Range { .. })), "{text}");
        }
    }
}
