//! The subcommands. Each is in a file of its own. `client`, `failure`, `finding`, `journal`, `publisher`, `queues`, `recordings` and `table` contain code
//! that several subcommands use.
//!
//! A subcommand prints its results to standard output, and everything else to standard error.

mod again;
pub(crate) mod audit;
pub(crate) mod broker;
mod cancel;
pub(crate) mod check;
mod client;
pub(crate) mod daemon;
pub(crate) mod dead_letters;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod failure;
pub(crate) mod failures;
mod finding;
pub(crate) mod inject;
mod journal;
mod learn;
pub(crate) mod messages;
pub(crate) mod pause;
mod publisher;
mod queues;
mod recordings;
pub(crate) mod retry;
pub(crate) mod runs;
pub(crate) mod send;
pub(crate) mod status;
mod table;
pub(crate) mod tasks;
pub(crate) mod test;
pub(crate) mod verify;

use std::io::{self, Write};
use std::time::Duration;

/// Writes to standard output. A closed pipe (`| head`) is not an error.
pub(crate) fn print(text: &str) -> io::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes a line about the command itself to standard error: what it does instead, or what is missing from its output.
pub(crate) fn note(text: &str) {
    // If standard error is closed, nobody can read the line.
    drop(writeln!(io::stderr().lock(), "note: {}", plain(text)));
}

/// Writes untrusted text to standard output. Removes control characters except line breaks and
/// tabs.
pub(crate) fn print_plain(text: &str) -> io::Result<()> {
    print(&plain(text))
}

/// Returns untrusted text without control characters except line breaks and tabs.
pub(crate) fn plain(text: &str) -> String {
    let is_plain = |c: &char| matches!(c, '\n' | '\t') || !loopabull_model::is_harmful(*c);
    text.chars().filter(is_plain).collect()
}

/// The time for which an idle thread for blocking work is kept: longer than any daemon runs.
const KEEP_ALIVE: Duration = Duration::from_hours(24 * 365);

/// Runs an async command to completion.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_keep_alive(KEEP_ALIVE)
        .build()?;
    let done = runtime.block_on(async {
        // tokio panics if it needs a thread for blocking work, has none, and cannot start one because the machine is
        // short of processes. If it has one, the work waits.
        drop(tokio::task::spawn_blocking(|| ()).await);
        future.await
    });
    // The compilation of a component cannot be cancelled. If a compilation is still in progress,
    // the runtime does not wait for its end.
    runtime.shutdown_background();
    Ok(done)
}

/// Formats a number of things: `1 message`, `2 messages`.
pub(crate) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Formats a time in milliseconds since 1970. Returns `-` for an unknown time, which is stored as
/// 0.
pub(crate) fn time(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(time) if ms > 0 => time.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        _ => "-".to_owned(),
    }
}
