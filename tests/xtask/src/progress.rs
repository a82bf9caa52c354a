//! The line that says how far it is: rewritten on a terminal, printed at changes elsewhere.

use std::io::{IsTerminal, stderr};

/// A line that changes. Ended on drop.
#[derive(Default)]
pub(crate) struct Progress {
    shown: String,
}

impl Progress {
    /// Shows a text instead of the one before.
    pub(crate) fn show(&mut self, text: &str) {
        if self.shown == text {
            return;
        }
        text.clone_into(&mut self.shown);
        if stderr().is_terminal() {
            eprint!("\r\x1b[K    {text}");
        } else {
            eprintln!("    {text}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if !self.shown.is_empty() && stderr().is_terminal() {
            eprintln!();
        }
    }
}
