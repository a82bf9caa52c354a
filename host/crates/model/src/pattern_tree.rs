//! A tree of topic patterns: finds the patterns that match a topic without trying each one.
//!
//! Patterns that begin with the same words share the nodes of these words. A topic is followed through the tree word by
//! word, along all patterns at once, so a message costs the same with one pattern and with thousands that it does not
//! match.

use std::collections::{BTreeSet, HashMap};

use crate::pattern::Word;
use crate::{Topic, TopicPattern};

/// Values by the patterns of their topics.
#[derive(Debug)]
pub(crate) struct PatternTree<T> {
    /// The first node is the root.
    nodes: Vec<Node<T>>,
}

/// A node stands for the words with which some patterns begin.
#[derive(Debug)]
struct Node<T> {
    literals: HashMap<String, usize>,
    one: Option<usize>,
    any: Option<usize>,
    /// Whether the last word is `#`, so that further words lead here again.
    is_any: bool,
    /// The values of the pattern that ends here.
    values: Vec<T>,
}

impl<T> PatternTree<T> {
    /// Adds a value for the topics that match a pattern.
    pub(crate) fn insert(&mut self, pattern: &TopicPattern, value: T) {
        let mut at = 0;
        for word in pattern.parts() {
            let next = self.nodes.len();
            let node = &mut self.nodes[at];
            at = match word {
                Word::Literal(word) => *node.literals.entry(word.clone()).or_insert(next),
                Word::One => *node.one.get_or_insert(next),
                Word::Any => *node.any.get_or_insert(next),
            };
            if at == next {
                self.nodes.push(Node::new(matches!(word, Word::Any)));
            }
        }
        self.nodes[at].values.push(value);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.iter().all(|node| node.values.is_empty())
    }

    /// Returns the values of all patterns that match the topic.
    pub(crate) fn find(&self, topic: &Topic) -> impl Iterator<Item = &T> {
        let mut reached = BTreeSet::new();
        self.reach(&mut reached, 0);
        for word in topic.words() {
            let mut next = BTreeSet::new();
            for at in reached {
                let node = &self.nodes[at];
                let again = node.is_any.then_some(at);
                let steps = [node.literals.get(word).copied(), node.one, again];
                steps.into_iter().flatten().for_each(|step| self.reach(&mut next, step));
            }
            reached = next;
        }
        reached.into_iter().flat_map(|at| &self.nodes[at].values)
    }

    /// Adds a node, and those to which a `#` without words leads.
    fn reach(&self, reached: &mut BTreeSet<usize>, node: usize) {
        let mut next = Some(node);
        while let Some(node) = next.filter(|node| reached.insert(*node)) {
            next = self.nodes[node].any;
        }
    }
}

impl<T> Default for PatternTree<T> {
    fn default() -> Self {
        Self { nodes: vec![Node::new(false)] }
    }
}

impl<T> Node<T> {
    fn new(is_any: bool) -> Self {
        Self { literals: HashMap::new(), one: None, any: None, is_any, values: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree finds what `TopicPattern::matches` finds, for all topics and patterns of a few words.
    #[test]
    fn the_tree_finds_all_patterns_that_match_and_no_others() {
        let words = |alphabet: &[&str], most: usize| {
            let mut texts: Vec<String> = alphabet.iter().map(|&word| word.to_owned()).collect();
            let mut last = texts.clone();
            for _ in 1..most {
                let mut longer = Vec::new();
                for text in &last {
                    longer.extend(alphabet.iter().map(|word| format!("{text}.{word}")));
                }
                texts.extend_from_slice(&longer);
                last = longer;
            }
            texts
        };
        let patterns: Vec<TopicPattern> = words(&["a", "b", "*", "#"], 4)
            .into_iter()
            .map(|pattern| pattern.try_into().unwrap())
            .collect();
        let mut tree = PatternTree::default();
        assert!(tree.is_empty());
        for (number, pattern) in patterns.iter().enumerate() {
            tree.insert(pattern, number);
        }
        assert!(!tree.is_empty());
        for topic in words(&["a", "b", "c"], 5) {
            let topic = Topic::try_from(topic.as_str()).unwrap();
            let mut found: Vec<usize> = tree.find(&topic).copied().collect();
            found.sort_unstable();
            let matching =
                patterns.iter().enumerate().filter(|(_, pattern)| pattern.matches(&topic));
            let expected: Vec<usize> = matching.map(|(number, _)| number).collect();
            assert_eq!(found, expected, "{topic:?}");
        }
    }

    #[test]
    fn the_values_of_equal_patterns_are_all_found() {
        let mut tree = PatternTree::default();
        let pattern: TopicPattern = "a.#".try_into().unwrap();
        tree.insert(&pattern, 1);
        tree.insert(&pattern, 2);
        let found: Vec<_> = tree.find(&"a".try_into().unwrap()).collect();
        assert_eq!(found, [&1, &2]);
    }
}
