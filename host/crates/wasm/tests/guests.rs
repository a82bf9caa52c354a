//! Guests that behave and guests that do not. Each is a WAT text around one function body, so that
//! this suite needs no WebAssembly toolchain; what a Rust task does is tested with the example
//! tasks.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use loopabull_fedmsg::{Envelope, Verifier};
use loopabull_model::{Attempt, Exceeded, Manifest, Message, Outcome, RunId};
use loopabull_wasm::{Call, Component, ComponentRunner, LoadError};

#[path = "hostile/setup.rs"]
mod setup;

/// The time of guests that use all of it. The others end long before.
const SHORT: Duration = Duration::from_millis(300);

/// Returns a component whose `handle` has this body. Its eight parameters are pointer and length of
/// id, topic, headers and body; its result is the address of a `result<_, failure>`, and at address
/// 0 there is an `ok`. At 64 there is the text `no good`, at 96 `reject("no good")`, at 128
/// `retry("no good")`.
fn guest(body: &str) -> String {
    include_str!("guests/guest.wat").replace("BODY", body)
}

fn message() -> Message {
    let body = br#"{"msg_id":"m-1","msg":{"n":1}}"#;
    Verifier::Off.verify(Envelope::parse(&[b"a.b", body], 2).unwrap(), 0).unwrap()
}

fn runner() -> ComponentRunner {
    setup::runner(2, None)
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
        state: None,
    }
}

async fn run_wat(wat: &str, timeout: Duration) -> Attempt {
    let runner = runner();
    let component = load(&runner, wat).map_err(|e| e.to_string()).unwrap();
    let message = message();
    let call = call(&message, timeout);
    let attempt = runner.run(&component, call.clone()).await;
    // Whatever the guest did: the next message gets a fresh instance and the same answer.
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
async fn a_pause_that_was_asked_for_comes_with_the_retry() {
    let attempt = run_wat(include_str!("guests/pause.wat"), SHORT).await;
    let after = Some(Duration::from_millis(1500));
    assert_eq!(attempt.outcome, Outcome::Retry { reason: "no good".into(), after });
}

#[tokio::test]
async fn a_trap_is_an_outcome_of_its_own() {
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
async fn an_endless_loop_meets_its_deadline() {
    let expected = Outcome::Limit { exceeded: Exceeded::Deadline { allowed: SHORT } };
    check("(loop $for_ever br $for_ever) unreachable", expected).await;
}

#[tokio::test]
async fn an_endless_loop_does_not_stop_its_neighbours() {
    let runner = Arc::new(runner());
    let load = |body: &str| load(&runner, &guest(body)).ok().unwrap();
    let (looping, good) = (load("(loop $l br $l) unreachable"), load("i32.const 0"));
    let message = message();
    // One thread for both: the loop has to give way for the other to end first.
    let endless = runner.run(&looping, call(&message, Duration::from_secs(60)));
    let neighbour = runner.run(&good, call(&message, Duration::from_secs(60)));
    tokio::select! {
        biased;
        attempt = endless => panic!("the loop ended: {:?}", attempt.outcome),
        attempt = neighbour => assert_eq!(attempt.outcome, Outcome::Success),
    }
}

#[tokio::test]
async fn memory_without_end_meets_its_limit() {
    // The guest starts with one page of 64 KiB, may have 1 MiB, and traps at the first refusal.
    let body = "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
                unreachable";
    let exceeded = Exceeded::Memory { allowed: 1 << 20, wanted: (1 << 20) + (64 << 10) };
    check(body, Outcome::Limit { exceeded }).await;
}

#[tokio::test]
async fn a_guest_that_lives_with_a_refusal_succeeds() {
    check("(drop (memory.grow (i32.const 1000))) i32.const 0", Outcome::Success).await;
}

#[tokio::test]
async fn a_flood_of_output_is_cut_and_counted() {
    let attempt = run_wat(include_str!("guests/flood.wat"), Duration::from_secs(60)).await;
    assert_eq!(attempt.outcome, Outcome::Success);
    assert_eq!(attempt.output.text, "0123456789".repeat(100));
    assert_eq!(attempt.output.dropped, 100_000 - 1000);
}

#[tokio::test]
async fn a_sleeping_guest_meets_its_deadline() {
    let attempt = run_wat(include_str!("guests/sleep.wat"), SHORT).await;
    let expected = Outcome::Limit { exceeded: Exceeded::Deadline { allowed: SHORT } };
    assert_eq!(attempt.outcome, expected);
}
