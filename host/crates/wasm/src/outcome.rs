//! What a run came to, from what wasmtime says of its end.

use std::time::Duration;

use loopabull_model::{Counted, Exceeded, Outcome, Reason};
use wasmtime::component::ResourceTableError;
use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::host::{Host, HostFailed, LimitReached, MAX_RANDOM, MAX_RESOURCES};
use crate::run::HOSTCALL_BYTES;

/// How many frames of a backtrace are kept.
const MAX_FRAMES: usize = 20;
/// The longest name of a function in a backtrace, in characters.
const MAX_NAME: usize = 200;

/// Raised inside the guest when its time is over.
#[derive(Debug, thiserror::Error)]
#[error("the time of the run is over")]
pub(crate) struct DeadlinePassed;

/// Returns the outcome of a run that ended by an error. `reason` makes a reason of what a guest said.
pub(crate) fn of_error(
    error: &wasmtime::Error,
    host: &Host,
    allowed: Duration,
    reason: impl Fn(String) -> Reason,
) -> Outcome {
    if error.is::<DeadlinePassed>() {
        return deadline_passed(allowed);
    }
    if let Some(LimitReached(exceeded)) = error.downcast_ref() {
        return Outcome::Limit { exceeded: exceeded.clone() };
    }
    if let Some(HostFailed(reason)) = error.downcast_ref() {
        return Outcome::NotStarted { reason: reason.as_str().into() };
    }
    if let Some(I32Exit(status)) = error.downcast_ref() {
        let status = format!("exit status {status} before it had answered");
        return Outcome::Exit { status: status.into() };
    }
    // A guest that is refused memory mostly aborts: what it did not get is the better reason.
    if let Some(wanted) = host.limiter.refused {
        let allowed = host.limiter.allowed;
        return Outcome::Limit { exceeded: Exceeded::Memory { allowed, wanted } };
    }
    if let Some(exceeded) = counted(error) {
        return Outcome::Limit { exceeded };
    }
    Outcome::Trap { reason: reason(trap_reason(error, &host.output.last_words())) }
}

pub(crate) fn deadline_passed(allowed: Duration) -> Outcome {
    Outcome::Limit { exceeded: Exceeded::Deadline { allowed } }
}

/// Returns the names of the functions that were running when a guest trapped, a line each.
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

/// wasmtime has no types for these; its texts are covered by tests with guests that run into them.
fn counted(error: &wasmtime::Error) -> Option<Exceeded> {
    let texts: Vec<String> = error.chain().map(ToString::to_string).collect();
    let says = |part: &str| texts.iter().any(|text| text.contains(part));
    let beyond = |what, allowed: u64| Exceeded::Count { what, allowed, wanted: allowed + 1 };
    if says("fuel allocated for hostcalls has been exhausted") {
        return Some(beyond(Counted::CallBytes, HOSTCALL_BYTES as u64));
    }
    if matches!(error.downcast_ref(), Some(ResourceTableError::Full))
        || says("handle limit exceeded")
    {
        return Some(beyond(Counted::Handles, MAX_RESOURCES as u64));
    }
    if says("requested len") && says("exceeds limit") {
        return Some(beyond(Counted::RandomBytes, MAX_RANDOM));
    }
    None
}

/// Says why the guest trapped. A Rust guest that panics traps with `unreachable`; what it said is
/// the end of its standard error, after the line that names the place.
fn trap_reason(error: &wasmtime::Error, last_words: &str) -> String {
    let mut lines = last_words.lines();
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

/// Returns the part of a line that tells where a thread panicked. What the guest wrote before it
/// without ending its line is left out.
fn panic_place(line: &str) -> Option<&str> {
    let at = line.rfind("panicked at")?;
    let start = line[..at].rfind("thread '").unwrap_or(at);
    Some(line[start..].trim_end())
}
