//! A progress line. On a terminal the line is overwritten. Otherwise each change is printed as a new line.

use std::io::{IsTerminal, stderr};

/// A progress line. It ends with a line feed on drop.
#[derive(Default)]
pub(crate) struct Progress {
    shown: String,
}

impl Progress {
    /// Shows a text in place of the previous one.
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
