//! One run of a component: a fresh store, one call, and the outcome.
//!
//! The store holds the instance and everything that belongs to the run. It is dropped after every run, also
//! after a trap, an exceeded limit or a timeout. The module `engine` has compiled the component before, and
//! `outcome` derives the outcome from an error.

use std::sync::Arc;
use std::time::{Duration, Instant};

use loopabull_model::{Attempt, Effects, Outcome, Output, Reason, Usage};
use wasmtime::{CallHook, Store, UpdateDeadline};

use crate::bindings::GrantedPre;
use crate::bindings::loopabull::task::types::{Failure, Message};
use crate::call::Call;
use crate::capabilities::Capabilities;
use crate::host::Host;
use crate::limits::{MAX_CALL_BYTES, MAX_RESOURCES};
use crate::outcome::{self, DeadlinePassed};

/// Time by which a run may exceed its deadline. A guest that computes is ended by the epoch interruption at
/// the deadline. A guest that waits inside a call to the host is ended after this additional time.
const DEADLINE_GRACE: Duration = Duration::from_millis(100);

pub(crate) async fn run(
    engine: &wasmtime::Engine,
    pre: &GrantedPre<Host>,
    capabilities: &Arc<Capabilities>,
    call: Call<'_>,
) -> Attempt {
    let mut store = match store(engine, capabilities, &call) {
        Ok(store) => store,
        Err(error) => {
            let reason = format!("cannot apply the grants of the task: {error:#}").into();
            return Attempt::without_output(match outcome::is_shortage(&error) {
                true => Outcome::Shortage { reason },
                false => Outcome::NotStarted { reason },
            });
        }
    };
    let timeout = call.timeout + DEADLINE_GRACE;
    let result = tokio::time::timeout(timeout, handle(&mut store, pre, &call)).await;
    let mut host = store.into_data();
    host.close_files();
    let mut backtrace = None;
    // Secrets are masked before the text is truncated, because a truncated secret would not be found.
    let reason = |text: String| Reason::from(capabilities.mask.text(&text));
    let outcome = match result {
        Ok(Ok(Ok(()))) => Outcome::Success,
        Ok(Ok(Err(Failure::Retry(text)))) => {
            Outcome::Retry { reason: reason(text), after: host.retry_after }
        }
        Ok(Ok(Err(Failure::Reject(text)))) => Outcome::Reject { reason: reason(text) },
        Ok(Err(error)) => {
            backtrace = outcome::backtrace(&error);
            outcome::of_error(&error, &host, call.timeout, reason)
        }
        Err(_) => outcome::deadline_passed(call.timeout),
    };
    let outcome = match outcome {
        Outcome::Success | Outcome::Shortage { .. } | Outcome::Limit { .. } => outcome,
        outcome => match capabilities.opens_descriptors().then(outcome::missing_descriptors) {
            Some(Some(reason)) => Outcome::Shortage { reason },
            Some(None) | None => outcome,
        },
    };
    attempt(host, capabilities, outcome, backtrace)
}

/// Creates the store of a run, with all limits of the run.
pub(crate) fn store(
    engine: &wasmtime::Engine,
    capabilities: &Arc<Capabilities>,
    call: &Call<'_>,
) -> wasmtime::Result<Store<Host>> {
    let deadline = Instant::now() + call.timeout;
    let mut store = Store::new(engine, Host::new(capabilities, call, deadline)?);
    store.limiter(|host| &mut host.limiter);
    store.set_hostcall_fuel(MAX_CALL_BYTES);
    store.set_max_component_handles(MAX_RESOURCES);
    store.call_hook(|mut store, hook| {
        if matches!(hook, CallHook::CallingHost) {
            store.data_mut().host_calls += 1;
        }
        Ok(())
    });
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |mut store| {
        // wasmtime calls the hook above for each interruption too (`HostResult` in its runtime/vm/traphandlers.rs).
        let calls = &mut store.data_mut().host_calls;
        *calls = calls.saturating_sub(1);
        if Instant::now() >= deadline {
            return Err(DeadlinePassed.into());
        }
        Ok(UpdateDeadline::Yield(1))
    });
    Ok(store)
}

async fn handle(
    store: &mut Store<Host>,
    pre: &GrantedPre<Host>,
    call: &Call<'_>,
) -> wasmtime::Result<Result<(), Failure>> {
    let task = pre.instantiate_async(&mut *store).await?;
    task.loopabull_task_handler().call_handle(store, &message(call)).await
}

/// Returns the message of a call in the form that the guest receives.
pub(crate) fn message(call: &Call<'_>) -> Message {
    Message {
        id: call.message.id.to_string(),
        topic: call.message.topic.to_string(),
        headers: call.message.headers.clone(),
        body: call.message.body.as_str().as_bytes().to_vec(),
    }
}

/// Returns the result of a run, with all secrets masked.
fn attempt(
    host: Host,
    capabilities: &Capabilities,
    outcome: Outcome,
    backtrace: Option<String>,
) -> Attempt {
    let mask = &capabilities.mask;
    let Output { text, dropped } = host.output.to_output();
    let mut text = if dropped > 0 { mask.cut_text(&text) } else { mask.text(&text) };
    if let Some(backtrace) = backtrace {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&backtrace);
    }
    let notes = host.notes.iter().map(|(key, value)| (mask.text(key), mask.text(value))).collect();
    let usage = Usage {
        memory: host.limiter.held,
        host_calls: host.host_calls,
        requests: host.requests().iter().map(|line| mask.text(line)).collect(),
    };
    let effects = match outcome {
        Outcome::Success => Effects { emitted: host.emitted, state: host.state },
        _ => Effects::default(),
    };
    Attempt { outcome, output: Output { text, dropped }, notes, usage, effects, playbook: None }
}
