//! One file per subcommand. Data goes to standard output, everything else to standard error.

pub(crate) mod check;
pub(crate) mod daemon;
pub(crate) mod inject;
pub(crate) mod runs;
pub(crate) mod status;
mod table;
pub(crate) mod test;

use std::io::{self, Write};

/// Writes to standard output. A reader that went away (`| head`) is no failure.
pub(crate) fn print(text: &str) -> io::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Runs an async command to its end.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
    Ok(tokio::runtime::Runtime::new()?.block_on(future))
}
