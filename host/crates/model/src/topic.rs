//! A topic: the dotted routing key of a message.
//!
//! A topic has only characters of a fixed alphabet, so other code can print, match and compare topics without
//! checks. A topic is never used as a path.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A dotted routing key, for example `org.fedoraproject.prod.buildsys.build.state.change`.
///
/// A topic has 1 to 255 bytes, the limit of an AMQP routing key. A topic consists of words joined by single
/// dots. Words consist of ASCII letters, digits and `-`, `_`, `+`, `~`, `:`, `@`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Deserialize, Serialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String)]
pub struct Topic(String);

/// The reason why a text is not a topic.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TopicError {
    #[error("topic is empty")]
    Empty,
    #[error("topic has {length} bytes, the limit is {limit}", limit = Topic::MAX_BYTES)]
    TooLong { length: usize },
    #[error("topic `{topic}` has an empty word")]
    EmptyWord { topic: String },
    #[error("topic `{topic}` has the forbidden character {character:?}")]
    ForbiddenCharacter { topic: String, character: char },
}

impl Topic {
    /// The maximum length of a topic, in bytes. AMQP 0-9-1 encodes routing keys as short strings.
    pub const MAX_BYTES: usize = 255;

    /// Returns the topic as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the words between the dots.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }
}

impl TryFrom<String> for Topic {
    type Error = TopicError;

    fn try_from(text: String) -> Result<Self, TopicError> {
        if text.is_empty() {
            return Err(TopicError::Empty);
        }
        if text.len() > Self::MAX_BYTES {
            return Err(TopicError::TooLong { length: text.len() });
        }
        if let Some(character) = text.chars().find(|&c| c != '.' && !is_word_character(c)) {
            let topic = text.escape_debug().to_string();
            return Err(TopicError::ForbiddenCharacter { topic, character });
        }
        if text.split('.').any(str::is_empty) {
            return Err(TopicError::EmptyWord { topic: text });
        }
        Ok(Self(text))
    }
}

impl TryFrom<&str> for Topic {
    type Error = TopicError;

    fn try_from(text: &str) -> Result<Self, TopicError> {
        Self::try_from(text.to_owned())
    }
}

impl From<Topic> for String {
    fn from(topic: Topic) -> String {
        topic.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns true if a character is allowed in a word of a topic and in the name of a task.
pub(crate) fn is_word_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || "-_+~:@".contains(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<(), TopicError>) {
        assert_eq!(Topic::try_from(text).map(|_| ()), expected);
    }

    #[test]
    fn words_joined_by_dots_are_a_topic() {
        check("org.fedoraproject.prod.buildsys.build.state.change", Ok(()));
        check("org.centos.prod.ci.dist-git-pr.test.complete", Ok(()));
        check("hello", Ok(()));
    }

    #[test]
    fn paths_are_not_topics() {
        let forbidden = |topic: &str, character| {
            let topic = topic.to_owned();
            Err(TopicError::ForbiddenCharacter { topic, character })
        };
        check("../../etc/passwd", forbidden("../../etc/passwd", '/'));
        check("a\\b", forbidden("a\\\\b", '\\'));
        check("a\0b", forbidden("a\\0b", '\0'));
        check("a b", forbidden("a b", ' '));
        check("a.é", forbidden("a.é", 'é'));
        check("..", Err(TopicError::EmptyWord { topic: "..".into() }));
    }

    #[test]
    fn empty_words_are_refused() {
        for text in [".a", "a.", "a..b"] {
            check(text, Err(TopicError::EmptyWord { topic: text.into() }));
        }
        check("", Err(TopicError::Empty));
    }

    #[test]
    fn wildcards_are_not_topics() {
        assert!(Topic::try_from("a.*").is_err());
        assert!(Topic::try_from("#").is_err());
    }

    #[test]
    fn the_limit_is_255_bytes() {
        check(&"a".repeat(255), Ok(()));
        check(&"a".repeat(256), Err(TopicError::TooLong { length: 256 }));
    }
}
