//! A topic pattern: the topics that a task wants.
//!
//! The rules are those of AMQP topic exchanges (AMQP 0-9-1, section 3.1.3.3): `*` matches exactly one word,
//! and `#` matches any number of words, also none. A wildcard must be a whole word. `a*` is refused, because
//! AMQP would treat its `*` as an ordinary character, which nobody intends.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Topic;
use crate::topic::is_word_character;

/// A pattern for topics, for example `org.fedoraproject.*.buildsys.#`.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String)]
pub struct TopicPattern(Vec<Word>);

/// The reason why a text is not a topic pattern.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PatternError {
    #[error("topic pattern has {length} bytes, the limit is {limit}", limit = Topic::MAX_BYTES)]
    TooLong { length: usize },
    #[error("topic pattern `{pattern}` has an empty word")]
    EmptyWord { pattern: String },
    #[error("topic pattern `{pattern}` has the forbidden character {character:?}")]
    ForbiddenCharacter { pattern: String, character: char },
    #[error("topic pattern `{pattern}` has a wildcard inside the word `{word}`")]
    PartialWildcard { pattern: String, word: String },
}

/// A word of a pattern.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Word {
    Literal(String),
    One,
    Any,
}

impl TopicPattern {
    /// Returns the words of the pattern.
    pub(crate) fn parts(&self) -> &[Word] {
        &self.0
    }

    /// Returns true if the pattern matches the topic.
    pub fn matches(&self, topic: &Topic) -> bool {
        // `reachable[i]` is true if the first `i` words of the pattern match the words of the topic so far. A
        // recursive match would take exponential time for patterns such as `#.#.#.#`, which a manifest may
        // contain.
        let mut reachable = vec![false; self.0.len() + 1];
        reachable[0] = true;
        self.spread_over_any(&mut reachable);
        for word in topic.words() {
            let mut next = vec![false; self.0.len() + 1];
            for (index, part) in self.0.iter().enumerate() {
                match part {
                    Word::Literal(literal) => {
                        next[index + 1] |= reachable[index] && literal == word
                    }
                    Word::One => next[index + 1] |= reachable[index],
                    Word::Any => next[index + 1] |= reachable[index + 1],
                }
            }
            self.spread_over_any(&mut next);
            reachable = next;
        }
        reachable[self.0.len()]
    }

    /// Returns true only if this pattern matches every topic that `other` matches. The result can be false
    /// although it does, as for the equivalent patterns `#.*` and `*.#`.
    pub fn covers(&self, other: &Self) -> bool {
        // The same algorithm as in `matches`, with the words of `other` instead of a topic. A `*` of `other`
        // is matched only by a wildcard, and a `#` of `other` only by `#`.
        let mut reachable = vec![false; self.0.len() + 1];
        reachable[0] = true;
        self.spread_over_any(&mut reachable);
        for word in &other.0 {
            let mut next = vec![false; self.0.len() + 1];
            for (index, part) in self.0.iter().enumerate() {
                match part {
                    Word::Literal(_) => next[index + 1] |= reachable[index] && part == word,
                    Word::One => next[index + 1] |= reachable[index] && *word != Word::Any,
                    Word::Any => next[index + 1] |= reachable[index + 1],
                }
            }
            self.spread_over_any(&mut next);
            reachable = next;
        }
        reachable[self.0.len()]
    }

    /// Returns the topic that the pattern matches, if the pattern has no wildcard.
    pub fn as_topic(&self) -> Option<Topic> {
        Topic::try_from(self.to_string()).ok()
    }

    fn spread_over_any(&self, reachable: &mut [bool]) {
        for (index, part) in self.0.iter().enumerate() {
            if matches!(part, Word::Any) {
                reachable[index + 1] |= reachable[index];
            }
        }
    }
}

impl TryFrom<String> for TopicPattern {
    type Error = PatternError;

    fn try_from(pattern: String) -> Result<Self, PatternError> {
        if pattern.len() > Topic::MAX_BYTES {
            return Err(PatternError::TooLong { length: pattern.len() });
        }
        let allowed = |c: char| c == '.' || c == '*' || c == '#' || is_word_character(c);
        if let Some(character) = pattern.chars().find(|&c| !allowed(c)) {
            let pattern = pattern.escape_debug().to_string();
            return Err(PatternError::ForbiddenCharacter { pattern, character });
        }
        let words = pattern.split('.').map(|word| match word {
            "" => Err(PatternError::EmptyWord { pattern: pattern.clone() }),
            "*" => Ok(Word::One),
            "#" => Ok(Word::Any),
            word if word.contains(['*', '#']) => Err(PatternError::PartialWildcard {
                pattern: pattern.clone(),
                word: word.to_owned(),
            }),
            word => Ok(Word::Literal(word.to_owned())),
        });
        words.collect::<Result<Vec<Word>, PatternError>>().map(Self)
    }
}

impl TryFrom<&str> for TopicPattern {
    type Error = PatternError;

    fn try_from(pattern: &str) -> Result<Self, PatternError> {
        Self::try_from(pattern.to_owned())
    }
}

impl From<Topic> for TopicPattern {
    fn from(topic: Topic) -> Self {
        Self(topic.words().map(|word| Word::Literal(word.to_owned())).collect())
    }
}

impl From<TopicPattern> for String {
    fn from(pattern: TopicPattern) -> String {
        pattern.to_string()
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            f.write_str(match word {
                Word::Literal(literal) => literal,
                Word::One => "*",
                Word::Any => "#",
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(pattern: &str, topic: &str, expected: bool) {
        let pattern = TopicPattern::try_from(pattern).unwrap();
        let topic = Topic::try_from(topic).unwrap();
        assert_eq!(pattern.matches(&topic), expected, "{pattern} against {topic}");
    }

    /// The definition in its simplest and slowest form.
    fn matches_by_definition(pattern: &[&str], topic: &[&str]) -> bool {
        match (pattern.split_first(), topic.split_first()) {
            (None, None) => true,
            (Some((&"#", rest)), _) => {
                (0..=topic.len()).any(|n| matches_by_definition(rest, &topic[n..]))
            }
            (Some((&"*", pattern)), Some((_, topic))) => matches_by_definition(pattern, topic),
            (Some((literal, pattern)), Some((word, topic))) => {
                literal == word && matches_by_definition(pattern, topic)
            }
            _ => false,
        }
    }

    #[test]
    fn a_literal_pattern_matches_only_itself() {
        check("a.b", "a.b", true);
        check("a.b", "a.b.c", false);
        check("a.b", "a.bc", false);
    }

    #[test]
    fn a_star_is_exactly_one_word() {
        check("org.fedoraproject.*.git.receive", "org.fedoraproject.prod.git.receive", true);
        check("org.fedoraproject.*.git.receive", "org.fedoraproject.git.receive", false);
        check("*", "a.b", false);
    }

    #[test]
    fn a_hash_is_any_number_of_words() {
        check("#", "a.b.c", true);
        check("a.#", "a", true);
        check("#.c", "a.b.c", true);
        check("a.#.d", "a.b.c.d", true);
        check("a.#.d", "a.b.c", false);
    }

    #[test]
    fn a_wildcard_is_a_whole_word() {
        let error = TopicPattern::try_from("a.b*").unwrap_err();
        assert_eq!(error.to_string(), "topic pattern `a.b*` has a wildcard inside the word `b*`");
    }

    #[test]
    fn a_path_is_not_a_pattern() {
        assert!(TopicPattern::try_from("../a").is_err());
        assert!(TopicPattern::try_from("a..b").is_err());
    }

    #[test]
    fn a_pattern_covers_narrower_patterns() {
        let covers = |wide: &str, narrow: &str| {
            let [wide, narrow] = [wide, narrow].map(|text| TopicPattern::try_from(text).unwrap());
            wide.covers(&narrow)
        };
        for narrow in ["a", "a.b", "a.*", "a.#", "#"] {
            assert_eq!(covers("a.#", narrow), narrow != "#", "{narrow}");
        }
        assert!(covers("*.b", "a.b") && !covers("a.b", "*.b"));
        assert!(!covers("a.*", "a.#") && !covers("a.*", "a"));
    }

    proptest! {
        #[test]
        fn a_pattern_matches_the_topics_of_each_covered_pattern(
            wide in "(a|b|\\*|#)(\\.(a|b|\\*|#)){0,4}",
            narrow in "(a|b|\\*|#)(\\.(a|b|\\*|#)){0,4}",
            topic in "(a|b)(\\.(a|b)){0,5}",
        ) {
            let [wide, narrow] = [wide, narrow].map(|text| TopicPattern::try_from(text).unwrap());
            let topic = Topic::try_from(topic).unwrap();
            if wide.covers(&narrow) && narrow.matches(&topic) {
                prop_assert!(wide.matches(&topic), "{wide} covers {narrow}, not {topic}");
            }
        }

        #[test]
        fn matching_agrees_with_the_definition(
            pattern in "(a|b|\\*|#)(\\.(a|b|\\*|#)){0,5}",
            topic in "(a|b)(\\.(a|b)){0,6}",
        ) {
            let expected = matches_by_definition(
                &pattern.split('.').collect::<Vec<_>>(),
                &topic.split('.').collect::<Vec<_>>(),
            );
            let pattern = TopicPattern::try_from(pattern).unwrap();
            prop_assert_eq!(pattern.matches(&Topic::try_from(topic).unwrap()), expected);
        }

        #[test]
        fn any_text_is_a_pattern_or_an_error(text in ".*") {
            if let Ok(pattern) = TopicPattern::try_from(text.clone()) {
                prop_assert_eq!(pattern.to_string(), text);
            }
        }
    }
}
