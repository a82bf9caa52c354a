//! One run of a component: a fresh store, one call, and what it came to.

use std::time::{Duration, Instant};

use loopabull_model::{Attempt, Exceeded, Outcome, Output, Reason};
use wasmtime::{Store, UpdateDeadline};
use wasmtime_wasi::I32Exit;

use crate::Call;
use crate::bindings::TaskPre;
use crate::bindings::loopabull::task::types::{Failure, Message};
use crate::engine::Engine;
use crate::host::Host;

/// How long past its deadline a run may be before we stop waiting. The epoch ends a guest that
/// computes; only one that is parked in a call of ours is left to this.
const PARKED: Duration = Duration::from_millis(100);

/// How many bytes a guest may hand to one call of ours.
const HOSTCALL_BYTES: usize = 16 << 20;

/// Raised inside the guest when its time is over.
#[derive(Debug, thiserror::Error)]
#[error("the time of the run is over")]
struct DeadlinePassed;

pub(crate) async fn run(engine: &Engine, pre: &TaskPre<Host>, call: Call<'_>) -> Attempt {
    let deadline = Instant::now() + call.timeout;
    let mut store = Store::new(engine.wasmtime(), Host::new(&call, deadline));
    store.limiter(|host| &mut host.limiter);
    store.set_hostcall_fuel(HOSTCALL_BYTES);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |_| {
        if Instant::now() >= deadline {
            return Err(DeadlinePassed.into());
        }
        Ok(UpdateDeadline::Yield(1))
    });
    let called = tokio::time::timeout(call.timeout + PARKED, handle(&mut store, pre, &call)).await;
    let host = store.data();
    let output = host.output.to_output();
    let outcome = match called {
        Ok(Ok(Ok(()))) => Outcome::Success,
        Ok(Ok(Err(Failure::Retry(reason)))) => {
            Outcome::Retry { reason: reason.into(), after: host.retry_after }
        }
        Ok(Ok(Err(Failure::Reject(reason)))) => Outcome::Reject { reason: reason.into() },
        Ok(Err(error)) => outcome_of_error(&error, host, &output, call.timeout),
        Err(_) => deadline_passed(call.timeout),
    };
    Attempt { outcome, output, notes: host.notes.clone() }
}

async fn handle(
    store: &mut Store<Host>,
    pre: &TaskPre<Host>,
    call: &Call<'_>,
) -> wasmtime::Result<Result<(), Failure>> {
    let message = Message {
        id: call.message.id.to_string(),
        topic: call.message.topic.to_string(),
        headers: call.message.headers.clone(),
        body: call.message.body.as_str().as_bytes().to_vec(),
    };
    let task = pre.instantiate_async(&mut *store).await?;
    task.loopabull_task_handler().call_handle(store, &message).await
}

fn outcome_of_error(
    error: &wasmtime::Error,
    host: &Host,
    output: &Output,
    allowed: Duration,
) -> Outcome {
    if error.downcast_ref::<DeadlinePassed>().is_some() {
        return deadline_passed(allowed);
    }
    // A guest that is refused memory mostly aborts: what it did not get is the better reason.
    if let Some(wanted) = host.limiter.refused {
        let allowed = host.limiter.allowed();
        return Outcome::Limit { exceeded: Exceeded::Memory { allowed, wanted } };
    }
    if let Some(I32Exit(status)) = error.downcast_ref() {
        return Outcome::Trap { reason: format!("exit with status {status}").into() };
    }
    Outcome::Trap { reason: trap_reason(error, output) }
}

fn deadline_passed(allowed: Duration) -> Outcome {
    Outcome::Limit { exceeded: Exceeded::Deadline { allowed } }
}

/// Says why the guest trapped. A Rust guest that panics traps with `unreachable`; what it said is
/// in its output, after the line that names the place.
fn trap_reason(error: &wasmtime::Error, output: &Output) -> Reason {
    let mut lines = output.text.lines();
    let panic = lines.by_ref().find(|line| line.contains("panicked at"));
    match (panic, lines.next()) {
        (Some(place), Some(text)) => format!("{} {text}", place.trim()).into(),
        (Some(place), None) => place.into(),
        (None, _) => error.root_cause().to_string().into(),
    }
}
