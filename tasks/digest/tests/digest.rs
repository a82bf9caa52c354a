//! Tests of the task `digest`: when the task emits a digest, and which results it counts.

use loopabull_task::test::{self, Run};
use loopabull_task::{Failure, reject};
use serde_json::{Value, json};

use crate::{REMEMBERED, digest};

const TOPIC: &str = "org.fedoraproject.prod.buildsys.build.state.change";

/// Runs the task on one result. `state` is the state after the previous run, if there was one.
fn run(id: &str, new: i64, builds: &str, state: Option<&Value>) -> Run {
    let body = json!({"name": "bull", "version": "2", "release": id, "new": new});
    let mut message = test::message(TOPIC, body.to_string()).id(id).config("builds", builds);
    if let Some(state) = state {
        message = message.state("collected", state);
    }
    message.run(digest)
}

/// Runs the task on several results in order. Returns the last run.
fn run_all(ids: &[(&str, i64)]) -> Run {
    let mut state = None;
    let mut last = None;
    for (id, new) in ids {
        let run = run(id, *new, "3", state.as_ref());
        assert_eq!(run.result, Ok(()));
        state = run.state.get("collected").cloned();
        last = Some(run);
    }
    last.expect("there is at least one result")
}

#[test]
fn results_are_collected_until_there_are_enough() {
    let run = run_all(&[("1", 1), ("2", 3)]);
    assert!(run.emitted.is_empty());
    assert_eq!(run.note("collected"), Some("2"));
    let run = run_all(&[("1", 1), ("2", 3), ("3", 1)]);
    assert_eq!(run.emitted[0].topic, "org.example.digest");
    assert_eq!(
        run.emitted[0].body,
        json!({
            "succeeded": 2,
            "failed": 1,
            "builds": [
                {"nvr": "bull-2-1", "succeeded": true},
                {"nvr": "bull-2-2", "succeeded": false},
                {"nvr": "bull-2-3", "succeeded": true},
            ],
        })
    );
    assert_eq!(run.note("collected"), Some("0"));
}

#[test]
fn collected_results_are_cleared_after_a_digest() {
    let run = run_all(&[("1", 1), ("2", 1), ("3", 1), ("4", 1)]);
    assert!(run.emitted.is_empty());
    assert_eq!(run.state["collected"]["builds"], json!([{"nvr": "bull-2-4", "succeeded": true}]));
}

#[test]
fn a_redelivered_message_counts_once() {
    let run = run_all(&[("1", 1), ("1", 1), ("2", 1), ("1", 1)]);
    assert!(run.emitted.is_empty());
    assert_eq!(run.note("skipped"), Some("the message was counted before"));
    let run = run_all(&[("1", 1), ("2", 1), ("3", 1), ("3", 1)]);
    assert!(run.emitted.is_empty(), "a result was counted again after its digest");
}

#[test]
fn a_build_without_a_result_is_not_collected() {
    for state in [0, 2, 4] {
        let run = run("1", state, "3", None);
        assert_eq!(run.result, Ok(()));
        assert!(run.state.is_empty());
    }
}

#[test]
fn the_number_of_remembered_ids_is_limited() {
    let ids: Vec<String> = (0..REMEMBERED).map(|id| format!("old-{id}")).collect();
    let run = run("new", 1, "3", Some(&json!({"ids": ids, "builds": []})));
    let kept = run.state["collected"]["ids"].as_array().expect("the ids are a JSON array");
    assert_eq!(kept.len(), REMEMBERED);
    assert_eq!(kept[0], "old-1");
    assert_eq!(kept[REMEMBERED - 1], "new");
}

#[test]
fn an_invalid_number_of_builds_is_rejected() {
    let reason = "invalid digit found in string";
    assert_eq!(run("1", 1, "many", None).result, reject(reason));
    assert_eq!(run("1", 1, "0", None).result, reject("`builds` is 0, but must be 1 to 1000"));
}

#[test]
fn state_of_another_type_is_rejected() {
    let Err(Failure::Reject(reason)) = run("1", 1, "3", Some(&json!(7))).result else {
        panic!("state of another type is not rejected")
    };
    assert!(reason.starts_with("cannot parse state `collected`: "), "{reason}");
}

#[test]
fn recorded_cases_have_the_expected_results() {
    test::cases(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases"), digest);
}
