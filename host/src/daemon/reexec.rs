//! The stacks of threads: large enough for what a broker can send.
//!
//! The AMQP library reads tables in tables by recursion and without a limit, so that a header of 5 kB ended
//! a daemon. Its threads are not ours to make; the standard library sizes them by its environment, which it
//! reads once, so this program begins anew with another.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;

/// The variable by which the standard library sizes the stacks of threads whose maker says nothing.
const VARIABLE: &str = "RUST_MIN_STACK";
/// What a thread of the AMQP library may need in bytes, of which it uses what it touches: 26,000 levels,
/// which is what a frame of 128 KiB can hold, need 400 MB in a debug build.
const BYTES: &str = "536870912";

/// Makes sure that threads have room for whatever a broker sends: becomes this same program anew, unless
/// it has that from its environment. To be called before anything is read or started.
///
/// # Errors
///
/// If it cannot become itself.
#[expect(clippy::disallowed_methods, reason = "no process is started: this one goes on as itself")]
pub(crate) fn make_room() -> anyhow::Result<()> {
    if std::env::var_os(VARIABLE).is_some() {
        return Ok(());
    }
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let error = Command::new(program).arg0(name).args(arguments).env(VARIABLE, BYTES).exec();
    Err(error).context("cannot start anew with larger stacks")
}
