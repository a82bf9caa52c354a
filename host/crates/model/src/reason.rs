//! The reason for an outcome, as one safe line.
//!
//! Most reasons contain text that a task chose. This module makes the text safe for a log line, a table and a
//! terminal.

use std::fmt::{self, Write};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A reason: one line of at most [`Reason::MAX_CHARS`] characters. Control characters and characters that
/// change the writing direction are escaped.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(from = "String", into = "String")]
#[schema(value_type = String)]
pub struct Reason(String);

impl Reason {
    /// The maximum length, in characters. A longer text is cut and ends with `…`.
    pub const MAX_CHARS: usize = 1000;

    /// Returns the reason as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Reason {
    fn from(text: &str) -> Self {
        let text = text.trim_end();
        let mut line = String::with_capacity(text.len().min(Self::MAX_CHARS));
        for (index, character) in text.chars().enumerate() {
            if index == Self::MAX_CHARS {
                line.push('…');
                break;
            }
            if is_harmful(character) {
                write!(line, "{}", character.escape_default())
                    .expect("writing to a string cannot fail");
            } else {
                line.push(character);
            }
        }
        Self(line)
    }
}

impl From<String> for Reason {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<Reason> for String {
    fn from(reason: Reason) -> String {
        reason.0
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns true if a character could start a new line or change the writing direction in a log or a terminal.
/// These are control characters, Unicode's bidirectional controls (UAX #9), and its line and paragraph
/// separators.
pub fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns a text of several lines with its harmful characters escaped, except for the line feeds.
pub fn escape_harmful(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => escaped.push('\n'),
            character if is_harmful(character) => escaped.extend(character.escape_default()),
            character => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_keeps_its_lines_and_loses_its_escapes() {
        assert_eq!(escape_harmful("a\n\u{1b}[2Jä\u{202e}"), "a\n\\u{1b}[2Jä\\u{202e}");
    }

    #[test]
    fn a_reason_is_one_line() {
        let reason = Reason::from("no\nPLAY RECAP \u{1b}[31m\u{202e}ok ä\n");
        assert_eq!(reason.as_str(), "no\\nPLAY RECAP \\u{1b}[31m\\u{202e}ok ä");
    }

    #[test]
    fn a_reason_is_short() {
        assert_eq!(Reason::from("x".repeat(100_000)).as_str().chars().count(), 1001);
    }
}
