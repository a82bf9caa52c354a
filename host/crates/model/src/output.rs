//! What a task writes: text with a cap.

use serde::{Deserialize, Serialize};

/// Text that a task wrote, up to the cap.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize, Serialize)]
pub struct Output {
    pub text: String,
    /// Bytes that the task wrote beyond the cap and that were thrown away.
    pub dropped: u64,
}

/// Takes what a task writes, up to so many bytes, and counts the rest: a chatty task is cut short,
/// it neither fails nor fills our memory.
#[derive(Clone, Debug)]
pub struct Capture {
    bytes: Vec<u8>,
    cap: usize,
    dropped: u64,
}

impl Capture {
    /// Makes a capture that keeps so many bytes.
    pub fn new(cap: u64) -> Self {
        Self { bytes: Vec::new(), cap: usize::try_from(cap).unwrap_or(usize::MAX), dropped: 0 }
    }

    /// Keeps what fits and counts the rest.
    pub fn push(&mut self, bytes: &[u8]) {
        let taken = bytes.len().min(self.cap - self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..taken]);
        self.dropped += (bytes.len() - taken) as u64;
    }

    /// Returns the text so far. What is not UTF-8 is replaced.
    pub fn to_output(&self) -> Output {
        let text = String::from_utf8_lossy(&self.bytes).into_owned();
        Output { text, dropped: self.dropped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted() {
        let mut capture = Capture::new(5);
        for text in ["abc", "", "def", "ghi"] {
            capture.push(text.as_bytes());
        }
        assert_eq!(capture.to_output(), Output { text: "abcde".into(), dropped: 4 });
    }
}
