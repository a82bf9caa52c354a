//! The output of a run: text of limited size, which is kept with the run.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The text that a task wrote, up to the limit.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct Output {
    pub text: String,
    /// Number of bytes beyond the limit, which were dropped.
    pub dropped: u64,
}

/// Collects the output of a task up to a limit and counts the bytes beyond it. A task with too much output
/// does not fail, and does not fill the memory of the host.
#[derive(Clone, Debug)]
pub struct Capture {
    bytes: Vec<u8>,
    limit: usize,
    dropped: u64,
}

impl Capture {
    /// Makes a capture that keeps at most `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self { bytes: Vec::new(), limit: usize::try_from(limit).unwrap_or(usize::MAX), dropped: 0 }
    }

    /// Keeps the bytes that fit and counts the others.
    pub fn push(&mut self, bytes: &[u8]) {
        let taken = bytes.len().min(self.limit - self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..taken]);
        self.dropped += (bytes.len() - taken) as u64;
    }

    /// Returns the text collected so far. Bytes that are not UTF-8 are replaced.
    pub fn to_output(&self) -> Output {
        let text = String::from_utf8_lossy(&self.bytes).into_owned();
        Output { text, dropped: self.dropped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_beyond_the_limit_is_counted() {
        let mut capture = Capture::new(5);
        for text in ["abc", "", "def", "ghi"] {
            capture.push(text.as_bytes());
        }
        assert_eq!(capture.to_output(), Output { text: "abcde".into(), dropped: 4 });
    }
}
