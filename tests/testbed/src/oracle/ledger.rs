//! The ledger: the log of a publisher. The publisher adds a record before it publishes a message, and another
//! record after the message is confirmed.
//!
//! Each record is appended by one write(2). So a publisher can be killed at any moment, several publishers
//! can share a file, and the file can be read while it grows.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// The log of a publisher, which is open for appending.
#[derive(Debug)]
pub struct Ledger {
    file: File,
}

impl Ledger {
    /// Opens a log to append to it, and creates it if it does not exist.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::options().create(true).append(true).open(path)? })
    }

    /// Records that a message is about to be published. It must be called before the first byte is sent.
    ///
    /// # Panics
    ///
    /// If the log cannot be written, or the id is empty or contains white space.
    pub fn attempted(&self, id: &str) {
        self.append("attempted", id);
    }

    /// Records that the message was confirmed.
    ///
    /// # Panics
    ///
    /// In the same cases as [`Ledger::attempted`].
    pub fn confirmed(&self, id: &str) {
        self.append("confirmed", id);
    }

    fn append(&self, what: &str, id: &str) {
        assert!(!id.is_empty() && !id.contains(char::is_whitespace), "`{id}` is not an id");
        let line = format!("{what} {id}\n");
        let written = (&self.file).write(line.as_bytes()).expect("the ledger is writable");
        assert_eq!(written, line.len(), "a record is written in one piece");
    }
}
