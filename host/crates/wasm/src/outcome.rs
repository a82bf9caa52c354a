//! Derives the outcome of a run from the error with which wasmtime ended the run.

use std::time::Duration;

use loopabull_model::{Counted, Exceeded, Outcome, Reason};
use wasmtime::component::ResourceTableError;
use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::host::{Host, HostFailed, LimitExceeded};
use crate::limits::{MAX_CALL_BYTES, MAX_RANDOM_BYTES, MAX_RESOURCES};

/// The maximum number of frames in a backtrace.
const MAX_FRAMES: usize = 20;
/// The maximum length of a function name in a backtrace, in characters.
const MAX_NAME: usize = 200;

/// Error that ends the guest when the run has reached its deadline.
#[derive(Debug, thiserror::Error)]
#[error("the run has reached its deadline")]
pub(crate) struct DeadlinePassed;

/// Returns the outcome of a run that ended with an error. `reason` makes a reason of a text, with all secrets
/// masked.
pub(crate) fn of_error(
    error: &wasmtime::Error,
    host: &Host,
    allowed: Duration,
    reason: impl Fn(String) -> Reason,
) -> Outcome {
    if error.is::<DeadlinePassed>() {
        return deadline_passed(allowed);
    }
    if let Some(LimitExceeded(exceeded)) = error.downcast_ref() {
        return Outcome::Limit { exceeded: exceeded.clone() };
    }
    if let Some(HostFailed(reason)) = error.downcast_ref() {
        return Outcome::Shortage { reason: reason.as_str().into() };
    }
    if is_shortage(error) {
        return Outcome::Shortage { reason: reason(format!("{error:#}")) };
    }
    if let Some(I32Exit(status)) = error.downcast_ref() {
        let status = format!("exit status {status} before it returned a result");
        return Outcome::Exit { status: status.into() };
    }
    // A guest whose memory growth is refused usually aborts. The refused growth explains the failure better
    // than the trap, so the outcome names the memory limit.
    if let Some(wanted) = host.limiter.refused {
        let allowed = host.limiter.allowed;
        return Outcome::Limit { exceeded: Exceeded::Memory { allowed, wanted } };
    }
    if let Some(exceeded) = exceeded_count(error) {
        return Outcome::Limit { exceeded };
    }
    Outcome::Trap { reason: reason(trap_reason(error, &host.output.stderr_tail())) }
}

/// Returns whether an error comes from a shortage of this machine, for example of memory for an instance.
pub(crate) fn is_shortage(error: &wasmtime::Error) -> bool {
    error.chain().any(|error| {
        let errno = error.downcast_ref::<rustix::io::Errno>().map(|&errno| errno.into());
        errno.as_ref().or(error.downcast_ref()).is_some_and(loopabull_launcher::is_shortage)
    })
}

/// Returns the error if this process is short of file descriptors now. A guest that cannot open a file or a connection
/// usually fails, and that is not its fault.
pub(crate) fn missing_descriptors() -> Option<Reason> {
    let error = std::fs::File::open("/dev/null").err()?;
    let reason = || format!("the host has no file descriptor left: {error}").into();
    loopabull_launcher::is_shortage(&error).then(reason)
}

pub(crate) fn deadline_passed(allowed: Duration) -> Outcome {
    Outcome::Limit { exceeded: Exceeded::Deadline { allowed } }
}

/// Returns the names of the functions that were active when the guest trapped, one per line.
pub(crate) fn backtrace(error: &wasmtime::Error) -> Option<String> {
    if !error.is::<Trap>() {
        return None;
    }
    let frames = error.downcast_ref::<WasmBacktrace>()?.frames();
    let mut text = String::from("backtrace:\n");
    for frame in frames.iter().take(MAX_FRAMES) {
        let name = frame.func_name().map_or_else(
            || format!("function {}", frame.func_index()),
            |name| format!("{:#}", rustc_demangle::demangle(name)),
        );
        let name: String = name.chars().take(MAX_NAME).collect();
        text.push_str(&format!("  {name}\n"));
    }
    (!frames.is_empty()).then_some(text)
}

/// Returns the limit that wasmtime enforced, if the error is about such a limit.
///
/// wasmtime has no types for most of these errors, so their texts are compared. If a later wasmtime changes a
/// text, a test fails, because test guests exceed each of these limits.
fn exceeded_count(error: &wasmtime::Error) -> Option<Exceeded> {
    let texts: Vec<String> = error.chain().map(ToString::to_string).collect();
    let contains = |part: &str| texts.iter().any(|text| text.contains(part));
    let exceeded = |what, allowed: u64| Exceeded::Count { what, allowed, wanted: allowed + 1 };
    if contains("fuel allocated for hostcalls has been exhausted") {
        return Some(exceeded(Counted::CallBytes, MAX_CALL_BYTES as u64));
    }
    if matches!(error.downcast_ref(), Some(ResourceTableError::Full))
        || contains("handle limit exceeded")
    {
        return Some(exceeded(Counted::Handles, MAX_RESOURCES as u64));
    }
    if contains("requested len") && contains("exceeds limit") {
        return Some(exceeded(Counted::RandomBytes, MAX_RANDOM_BYTES));
    }
    None
}

/// Returns the reason for a trap.
///
/// A Rust guest that panics traps with `unreachable`. The panic message is at the end of standard error: a
/// line with the place of the panic, then a line with the message.
fn trap_reason(error: &wasmtime::Error, stderr_tail: &str) -> String {
    let mut lines = stderr_tail.lines();
    let mut panic = None;
    while let Some(line) = lines.next() {
        if let Some(place) = panic_place(line) {
            panic = Some((place, lines.clone().next()));
        }
    }
    match panic {
        Some((place, Some(text))) => format!("{place} {text}"),
        Some((place, None)) => place.to_owned(),
        None => error.root_cause().to_string(),
    }
}

/// Returns the part of a line that says where a thread panicked. Output of the guest before that part is
/// skipped.
fn panic_place(line: &str) -> Option<&str> {
    let at = line.rfind("panicked at")?;
    let start = line[..at].rfind("thread '").unwrap_or(at);
    Some(line[start..].trim_end())
}
