//! The reader of one text: its position in the text, and the canonical text written so far.
//!
//! This module reads whitespace and the names such as `null` and `true`. The modules
//! [`string`](super::string) and [`number`](super::number) add the methods that read strings and numbers. The
//! parser reads arrays and objects.

use super::error::JsonError;
use super::output::Output;

/// Reads the scalars of one text and writes them in canonical form.
pub(super) struct Reader<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
    pub(super) out: Output<'a>,
    /// True if serde_json must check the text: see [`Document`](super::Document).
    pub(super) is_odd: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0, out: Output::new(text), is_odd: false }
    }

    pub(super) fn syntax(&self, problem: &'static str) -> JsonError {
        JsonError::Syntax { problem, at: self.at }
    }

    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    pub(super) fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    /// Skips whitespace, which is not written.
    #[inline]
    pub(super) fn space(&mut self) {
        let start = self.at;
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        if self.at > start {
            self.out.leave_out(start, self.at);
        }
    }

    /// Reads `null`, `true`, `false`, or one of Python's names for infinite numbers and `NaN`.
    pub(super) fn name(&mut self) -> Result<(), JsonError> {
        let (name, is_number) = match self.peek() {
            Some(b'n') => ("null", false),
            Some(b't') => ("true", false),
            Some(b'f') => ("false", false),
            Some(b'N') => ("NaN", true),
            Some(b'I') => ("Infinity", true),
            _ => ("-Infinity", true),
        };
        if !self.rest().starts_with(name.as_bytes()) {
            return Err(self.syntax("a value is missing"));
        }
        self.at += name.len();
        self.is_odd |= is_number;
        Ok(())
    }
}
