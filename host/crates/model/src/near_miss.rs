//! Patterns that match a topic but for one word, which is how most wrong patterns are wrong.

use crate::pattern::Word;
use crate::{Topic, TopicPattern};

/// The one change after which a pattern would match a topic.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NearMiss {
    /// A word differs. Words are counted from 1, in the topic.
    Differs { word: usize, topic: String, pattern: String },
    /// The topic has one word that the pattern does not have.
    Extra { word: usize, topic: String },
    /// The pattern has one word that the topic does not have.
    Missing { pattern: String },
}

/// The fewest changes that make the first words of a pattern match the first words of a topic, and the last change.
#[derive(Clone, Debug)]
struct Edits {
    count: usize,
    /// The words that wildcards match. Of two ways with equally many changes, the one with fewer is more likely meant.
    wild: usize,
    last: Option<NearMiss>,
}

impl Edits {
    fn with(&self, change: NearMiss) -> Self {
        Self { count: self.count + 1, wild: self.wild, last: Some(change) }
    }

    fn with_wild(&self) -> Self {
        Self { wild: self.wild + 1, ..self.clone() }
    }

    fn cost(&self) -> (usize, usize) {
        (self.count, self.wild)
    }
}

impl NearMiss {
    /// Returns the change after which the pattern would match the topic, if there is one. Returns `None` if the pattern
    /// matches.
    pub fn of(pattern: &TopicPattern, topic: &Topic) -> Option<Self> {
        let (parts, words): (_, Vec<&str>) = (pattern.parts(), topic.words().collect());
        // `row[j]` belongs to the pattern's words so far and the first `j` words of the topic.
        let mut row = vec![Edits { count: 0, wild: 0, last: None }];
        for (index, word) in words.iter().enumerate() {
            let extra = Self::Extra { word: index + 1, topic: (*word).to_owned() };
            let next = row[index].with(extra);
            row.push(next);
        }
        for part in parts {
            let mut next: Vec<Edits> = Vec::with_capacity(row.len());
            for column in 0..row.len() {
                let missing = match part {
                    Word::Any => row[column].clone(),
                    Word::One => row[column].with(Self::Missing { pattern: "*".to_owned() }),
                    Word::Literal(literal) => {
                        row[column].with(Self::Missing { pattern: literal.clone() })
                    }
                };
                let Some(before) = column.checked_sub(1) else {
                    next.push(missing);
                    continue;
                };
                let word = words[before];
                let extra = match part {
                    Word::Any => next[before].with_wild(),
                    Word::One | Word::Literal(_) => {
                        next[before].with(Self::Extra { word: column, topic: word.to_owned() })
                    }
                };
                let both = match part {
                    Word::Literal(literal) if literal != word => row[before].with(Self::Differs {
                        word: column,
                        topic: word.to_owned(),
                        pattern: literal.clone(),
                    }),
                    Word::One | Word::Any => row[before].with_wild(),
                    Word::Literal(_) => row[before].clone(),
                };
                // Of equal ways, the first is told.
                let ways = [extra, both, missing].into_iter();
                next.extend(ways.min_by_key(Edits::cost));
            }
            row = next;
        }
        let edits = row.pop()?;
        edits.last.filter(|_| edits.count == 1)
    }
}

impl std::fmt::Display for NearMiss {
    /// Says what differs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Differs { word, topic, pattern } => {
                write!(
                    f,
                    "word {word} of the topic is `{topic}`, where the pattern has `{pattern}`"
                )
            }
            Self::Extra { word, topic } => {
                write!(f, "the pattern has nothing for word {word} of the topic, `{topic}`")
            }
            Self::Missing { pattern } => {
                write!(f, "the topic has nothing for the word `{pattern}` of the pattern")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, topic: &str, expected: Option<&str>) {
        let pattern = TopicPattern::try_from(pattern).unwrap();
        let topic = Topic::try_from(topic).unwrap();
        let found = NearMiss::of(&pattern, &topic).map(|near| near.to_string());
        assert_eq!(found.as_deref(), expected, "{pattern} {topic}");
        assert!(!pattern.matches(&topic) || found.is_none());
    }

    #[test]
    fn one_word_is_named() {
        check("a.b.c", "a.x.c", Some("word 2 of the topic is `x`, where the pattern has `b`"));
        check("a.*.c", "a.x.d", Some("word 3 of the topic is `d`, where the pattern has `c`"));
        check("a.b.#", "a.x.y.z", Some("word 2 of the topic is `x`, where the pattern has `b`"));
        check("a.b", "a.b.c", Some("the pattern has nothing for word 3 of the topic, `c`"));
        check("a.*", "a.b.c", Some("the pattern has nothing for word 3 of the topic, `c`"));
        check("a.b.c", "a.c", Some("the topic has nothing for the word `b` of the pattern"));
        check("a.*.c", "a.c", Some("the topic has nothing for the word `*` of the pattern"));
        check(
            "#.end",
            "a.b.ent",
            Some("word 3 of the topic is `ent`, where the pattern has `end`"),
        );
    }

    #[test]
    fn a_match_and_something_else_are_no_near_misses() {
        for (pattern, topic) in [
            ("a.b", "a.b"),
            ("#", "a"),
            ("a.#", "a"),
            ("a.#.#.b", "a.b"),
            ("a.b", "c.d"),
            ("a.b.c", "x.y.c"),
        ] {
            check(pattern, topic, None);
        }
    }
}
