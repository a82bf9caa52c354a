//! What a publisher writes down: that it is about to publish a message, and that it is told the
//! message is safe.
//!
//! Each record is appended by one write(2), so that a publisher may be killed at any moment, many
//! may share a file, and it may be read meanwhile.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// The log of a publisher.
#[derive(Debug)]
pub struct Ledger {
    file: File,
}

impl Ledger {
    /// Opens a log, and makes it if there is none. What it has stays there.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::options().create(true).append(true).open(path)? })
    }

    /// Records that this message is published from now on: before the first byte is sent.
    ///
    /// # Panics
    ///
    /// If it cannot be written, or the id has white space.
    pub fn attempted(&self, id: &str) {
        self.append("attempted", id);
    }

    /// Records that the publish was confirmed.
    ///
    /// # Panics
    ///
    /// If it cannot be written, or the id has white space.
    pub fn confirmed(&self, id: &str) {
        self.append("confirmed", id);
    }

    fn append(&self, what: &str, id: &str) {
        assert!(!id.is_empty() && !id.contains(char::is_whitespace), "`{id}` is not an id");
        let line = format!("{what} {id}\n");
        let written = (&self.file).write(line.as_bytes()).expect("the ledger can be written");
        assert_eq!(written, line.len(), "a record is written in one piece");
    }
}
