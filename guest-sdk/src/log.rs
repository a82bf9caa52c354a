//! Log lines, kept with the run.
//!
//! ```
//! # use loopabull_task::log;
//! # let (name, build) = ("kernel".to_owned(), 7);
//! log::info("the build is done", &[("package", &name), ("build", &build)]);
//! log::debug("nothing to add", &[]);
//! ```
//!
//! Fields are for machines, the text is for people. A field's value is anything that can
//! be displayed, by reference. The host caps the number of lines and their length, so a
//! task need not.

use std::fmt::Display;

use crate::host;

pub use crate::bindings::loopabull::task::log::Level;

/// Writes a line that only the task's author reads.
pub fn trace(text: &str, fields: &[(&str, &dyn Display)]) {
    write(Level::Trace, text, fields);
}

/// Writes a line that explains what the task did.
pub fn debug(text: &str, fields: &[(&str, &dyn Display)]) {
    write(Level::Debug, text, fields);
}

/// Writes a line that says what came of the message.
pub fn info(text: &str, fields: &[(&str, &dyn Display)]) {
    write(Level::Info, text, fields);
}

/// Writes a line that somebody should look at some day.
pub fn warn(text: &str, fields: &[(&str, &dyn Display)]) {
    write(Level::Warn, text, fields);
}

/// Writes a line that somebody should look at now.
pub fn error(text: &str, fields: &[(&str, &dyn Display)]) {
    write(Level::Error, text, fields);
}

fn write(level: Level, text: &str, fields: &[(&str, &dyn Display)]) {
    let fields: Vec<(String, String)> =
        fields.iter().map(|(key, value)| ((*key).to_owned(), value.to_string())).collect();
    host::log::write(level, text, &fields);
}
