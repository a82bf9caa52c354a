//! The routing table: from topics to the tasks that want them.
//!
//! The host builds the table from all loaded tasks. The table never changes; a reload of tasks builds a new
//! one.

use std::collections::HashMap;
use std::sync::Arc;

use crate::pattern_tree::PatternTree;
use crate::{Task, TaskName, Topic};

/// The routing table, from topics to tasks.
#[derive(Debug, Default)]
pub struct Routes {
    tasks: HashMap<TaskName, Arc<Task>>,
    exact: HashMap<Topic, Vec<Arc<Task>>>,
    wildcard: PatternTree<Arc<Task>>,
}

impl Routes {
    /// Builds the table. If two tasks have the same name, the table has only the later one.
    pub fn build(tasks: impl IntoIterator<Item = Task>) -> Self {
        let mut routes = Self::default();
        for task in tasks {
            routes.tasks.insert(task.name.clone(), Arc::new(task));
        }
        // The tasks are sorted by name, so that the entries of a message are always queued in the same order.
        let mut tasks: Vec<_> = routes.tasks.values().cloned().collect();
        tasks.sort_by(|a, b| a.name.cmp(&b.name));
        for task in tasks {
            for pattern in task.patterns() {
                match pattern.as_topic() {
                    Some(topic) => routes.exact.entry(topic).or_default().push(Arc::clone(&task)),
                    None => routes.wildcard.insert(&pattern, Arc::clone(&task)),
                }
            }
        }
        routes
    }

    /// Returns the tasks that want the topic, without duplicates and sorted by name.
    pub fn resolve(&self, topic: &Topic) -> Vec<Arc<Task>> {
        let exact = self.exact.get(topic).into_iter().flatten();
        let mut tasks: Vec<_> = exact.chain(self.wildcard.find(topic)).cloned().collect();
        tasks.sort_by(|a, b| a.name.cmp(&b.name));
        tasks.dedup_by(|a, b| a.name == b.name);
        tasks
    }

    /// Returns all topics that tasks want, sorted. Returns `None` if a task wants a pattern with wildcards.
    pub fn literal_topics(&self) -> Option<Vec<&Topic>> {
        let mut topics: Vec<_> = self.exact.keys().collect();
        topics.sort_unstable();
        self.wildcard.is_empty().then_some(topics)
    }

    /// Returns the task with this name.
    pub fn task(&self, name: &TaskName) -> Option<&Arc<Task>> {
        self.tasks.get(name)
    }

    /// Returns all tasks, sorted by name.
    pub fn tasks(&self) -> Vec<&Arc<Task>> {
        let mut tasks: Vec<_> = self.tasks.values().collect();
        tasks.sort_by(|a, b| a.name.cmp(&b.name));
        tasks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Manifest, TaskKind};

    fn task(name: &str, topics: Option<&[&str]>) -> Task {
        let topics = topics.map(|topics| topics.iter().map(|&t| t.try_into().unwrap()).collect());
        Task {
            name: name.try_into().unwrap(),
            kind: TaskKind::Component,
            manifest: Manifest { topics, ..Manifest::default() },
        }
    }

    fn check(tasks: Vec<Task>, topic: &str, expected: &[&str]) {
        let found = Routes::build(tasks).resolve(&topic.try_into().unwrap());
        assert_eq!(found.iter().map(|task| task.name.as_str()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn topics_are_listed_if_no_task_uses_wildcards() {
        let routes = Routes::build([task("b", Some(&["x.y"])), task("a", None)]);
        let topics: Vec<_> = routes.literal_topics().unwrap().iter().map(|t| t.as_str()).collect();
        assert_eq!(topics, ["a", "x.y"]);
        let routes = Routes::build([task("b", Some(&["x.*"])), task("a", None)]);
        assert_eq!(routes.literal_topics(), None);
    }

    #[test]
    fn the_name_is_the_topic_by_default() {
        check(vec![task("a.b", None), task("a.c", None)], "a.b", &["a.b"]);
    }

    #[test]
    fn topics_of_the_manifest_replace_the_name() {
        check(vec![task("a.b", Some(&["x"]))], "a.b", &[]);
    }

    #[test]
    fn each_task_of_a_topic_is_returned_once() {
        let tasks = || {
            vec![
                task("z", Some(&["a.*", "a.#", "a.b"])),
                task("a.b", None),
                task("all", Some(&["#"])),
            ]
        };
        check(tasks(), "a.b", &["a.b", "all", "z"]);
        check(tasks(), "c", &["all"]);
    }

    #[test]
    fn a_topic_may_have_no_task() {
        check(vec![task("a.b", None)], "a.b.c", &[]);
    }
}
