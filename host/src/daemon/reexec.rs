//! Re-executes this program with larger thread stacks.
//!
//! lapin, the AMQP library, parses nested tables recursively and without a depth limit. A header of
//! 5 kB can therefore overflow the stack of a thread. lapin starts its threads itself, with the
//! default stack size of the standard library. The standard library reads that size only once, from
//! an environment variable. So this program sets the variable and executes itself again.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// Environment variable from which the standard library reads the default stack size of threads.
const VARIABLE: &str = "RUST_MIN_STACK";
/// Stack size in bytes. A frame of 128 KiB can contain 26,000 nested tables, which need 400 MB in a
/// debug build. A thread occupies only the part of its stack that it uses.
const STACK_BYTES: &str = "536870912";

/// The reason why this program cannot execute itself again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReexecError {
    #[error("cannot find the executable of this process")]
    CurrentExe(#[source] std::io::Error),
    #[error("cannot execute `{program}` again with larger thread stacks")]
    Exec { program: PathBuf, source: std::io::Error },
}

/// Replaces this process by the same program with larger thread stacks, unless the environment
/// already sets the stack size. Call this function before standard input is read and before threads
/// are started.
///
/// # Errors
///
/// If the program cannot be found or executed.
#[expect(clippy::disallowed_methods, reason = "it replaces this process and starts no other")]
pub(crate) fn reexec_with_large_stacks() -> Result<(), ReexecError> {
    if std::env::var_os(VARIABLE).is_some() {
        return Ok(());
    }
    let program = std::env::current_exe().map_err(ReexecError::CurrentExe)?;
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let source =
        Command::new(&program).arg0(name).args(arguments).env(VARIABLE, STACK_BYTES).exec();
    Err(ReexecError::Exec { program, source })
}
