//! Tests of well-behaved and failing guests, and of the outcomes of their runs.
//!
//! Each guest is WebAssembly text (WAT) with one function body, so these tests need no WebAssembly toolchain.
//! Components that are compiled from Rust are tested in `tests/it`, with the example tasks.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use loopabull_fedmsg::{Envelope, Verifier};
use loopabull_model::{Attempt, Exceeded, Manifest, Message, Outcome, RunId};
use loopabull_wasm::{Call, Component, ComponentRunner, LoadError};

#[path = "hostile/test_runner.rs"]
mod test_runner;

/// The timeout of runs. Only guests that never end use all of this time.
const SHORT: Duration = Duration::from_millis(300);

/// Returns a component whose function `handle` has this body.
///
/// The eight parameters are pointer and length of id, topic, headers and body. The result is the address of a
/// `result<_, failure>`: address 0 has `ok`, address 96 `reject("no good")`, and address 128
/// `retry("no good")`. Address 64 has the text `no good`.
fn guest(body: &str) -> String {
    include_str!("guests/guest.wat").replace("BODY", body)
}

fn message() -> Message {
    let body = br#"{"msg_id":"m-1","msg":{"n":1}}"#;
    Verifier::Off.verify(Envelope::parse(&[b"a.b", body], 2).unwrap(), 0).unwrap()
}

fn runner() -> ComponentRunner {
    test_runner::runner(2, None)
}

fn load(runner: &ComponentRunner, wat: &str) -> Result<Component, LoadError> {
    runner.load(&wat::parse_str(wat).unwrap(), &Manifest::default(), BTreeMap::new())
}

fn call(message: &Message, timeout: Duration) -> Call<'_> {
    Call {
        message,
        run_id: RunId::new("r-1"),
        attempt: 2,
        timeout,
        memory: 1 << 20,
        output: 1000,
        state: Arc::new(|_| Box::pin(async { Ok(None) })),
    }
}

async fn run_wat(wat: &str, timeout: Duration) -> Attempt {
    let runner = runner();
    let component = load(&runner, wat).map_err(|e| e.to_string()).unwrap();
    let message = message();
    let call = call(&message, timeout);
    let attempt = runner.run(&component, call.clone()).await;
    // Each message gets a fresh instance, so a second run has the same outcome.
    let again = runner.run(&component, call).await;
    assert_eq!(attempt.outcome, again.outcome);
    attempt
}

async fn check(body: &str, expected: Outcome) {
    assert_eq!(run_wat(&guest(body), SHORT).await.outcome, expected);
}

fn trap(reason: &str) -> Outcome {
    Outcome::Trap { reason: reason.into() }
}

#[tokio::test]
async fn ok_is_success() {
    check("i32.const 0", Outcome::Success).await;
}

#[tokio::test]
async fn a_failure_keeps_its_kind_and_reason() {
    check("i32.const 96", Outcome::Reject { reason: "no good".into() }).await;
    check("i32.const 128", Outcome::Retry { reason: "no good".into(), after: None }).await;
}

#[tokio::test]
async fn a_requested_pause_is_part_of_the_retry() {
    let attempt = run_wat(include_str!("guests/pause.wat"), SHORT).await;
    let after = Some(Duration::from_millis(1500));
    assert_eq!(attempt.outcome, Outcome::Retry { reason: "no good".into(), after });
}

#[tokio::test]
async fn a_trap_is_reported_with_its_cause() {
    check("unreachable", trap("wasm trap: wasm `unreachable` instruction executed")).await;
    let division = "(i32.div_u (i32.const 1) (i32.const 0))";
    check(division, trap("wasm trap: integer divide by zero")).await;
    let wild = "(i32.load (i32.const 0x7fffffff))";
    check(wild, trap("wasm trap: out of bounds memory access")).await;
}

#[tokio::test]
async fn deep_recursion_is_a_trap() {
    check("call $deep i32.const 0", trap("wasm trap: call stack exhausted")).await;
}

#[tokio::test]
async fn an_endless_loop_exceeds_its_deadline() {
    let expected = Outcome::Limit { exceeded: Exceeded::Deadline { allowed: SHORT } };
    let attempt = run_wat(&guest("(loop $forever br $forever) unreachable"), SHORT).await;
    assert_eq!(attempt.outcome, expected);
    // The host interrupts the run each 10 ms. That is no call of the guest.
    assert_eq!(attempt.usage.host_calls, 0);
}

#[tokio::test]
async fn an_endless_loop_does_not_block_other_runs() {
    let runner = Arc::new(runner());
    let load = |body: &str| load(&runner, &guest(body)).ok().unwrap();
    let (looping, good) = (load("(loop $l br $l) unreachable"), load("i32.const 0"));
    let message = message();
    // Both runs share one thread. The other run can end only if the run with the endless loop yields.
    let endless = runner.run(&looping, call(&message, Duration::from_secs(60)));
    let other = runner.run(&good, call(&message, Duration::from_secs(60)));
    tokio::select! {
        biased;
        attempt = endless => panic!("the loop ended: {:?}", attempt.outcome),
        attempt = other => assert_eq!(attempt.outcome, Outcome::Success),
    }
}

#[tokio::test]
async fn endless_memory_growth_exceeds_its_limit() {
    // The guest starts with one page of 64 KiB. The guest may use 1 MiB, and traps when a growth is refused.
    let body = "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
                unreachable";
    let exceeded = Exceeded::Memory { allowed: 1 << 20, wanted: (1 << 20) + (64 << 10) };
    check(body, Outcome::Limit { exceeded }).await;
}

#[tokio::test]
async fn a_guest_that_tolerates_a_refused_growth_succeeds() {
    check("(drop (memory.grow (i32.const 1000))) i32.const 0", Outcome::Success).await;
}

#[tokio::test]
async fn excess_output_is_truncated_and_counted() {
    let attempt = run_wat(include_str!("guests/flood.wat"), Duration::from_secs(60)).await;
    assert_eq!(attempt.outcome, Outcome::Success);
    assert_eq!(attempt.output.text, "0123456789".repeat(100));
    assert_eq!(attempt.output.dropped, 100_000 - 1000);
}

#[tokio::test]
async fn a_sleeping_guest_exceeds_its_deadline() {
    let attempt = run_wat(include_str!("guests/sleep.wat"), SHORT).await;
    let expected = Outcome::Limit { exceeded: Exceeded::Deadline { allowed: SHORT } };
    assert_eq!(attempt.outcome, expected);
}
