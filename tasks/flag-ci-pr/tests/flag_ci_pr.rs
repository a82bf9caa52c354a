//! Tests of the task `flag-ci-pr`: which flag the task sets on a pull request.

use loopabull_task::test::{self, Run};
use loopabull_task::{Failure, reject, retry};
use serde_json::{Value, json};

use crate::flag_ci_pr;

const API: &str = "https://src.fedoraproject.org/api/0/rpms/bull/pull-request/7/flag";

fn ci_run() -> Value {
    json!({
        "artifact": {
            "type": "dist-git-pr",
            "id": 7,
            "issuer": "ada",
            "repository": "https://src.fedoraproject.org/rpms/bull",
            "commit_hash": "00112233445566778899aabbccddeeff00112233",
            "comment_id": 0,
            "uid": "9b1e",
        },
        "contact": {"name": "Fedora CI", "team": "Fedora CI"},
        "pipeline": {"id": "p-1", "name": "dist-git test"},
        "test": {
            "namespace": "fedora-ci",
            "type": "dist-git",
            "category": "functional",
            "result": "passed",
        },
        "run": {"url": "https://ci.example/7/", "log": "https://ci.example/7/log"},
        "version": "0.2.1",
    })
}

/// Runs the task on a message with this state. The value at `place` in the body is replaced by `value`.
fn run(state: &str, place: &str, value: Value) -> Run {
    run_answered(state, place, value, 200)
}

fn run_answered(state: &str, place: &str, value: Value, status: u16) -> Run {
    let mut body = ci_run();
    *body.pointer_mut(place).expect("the body has a value at this place") = value;
    test::message(format!("org.centos.prod.ci.dist-git-pr.test.{state}"), body.to_string())
        .secret("pagure_token", "s3cret")
        .respond("POST", API, status, "{}")
        .run(flag_ci_pr)
}

fn check(state: &str, result: &str, expected: &str) {
    let run = run(state, "/test/result", json!(result));
    assert_eq!(run.result, Ok(()));
    let form = run.requests[0].text();
    let (_, end) = form.split_once("&status=").expect("a flag has a status");
    assert_eq!(end, expected);
}

fn check_skipped(place: &str, value: Value, reason: &str) {
    let run = run("complete", place, value);
    assert_eq!(run.result, Ok(()));
    assert_eq!(run.note("skipped"), Some(reason));
    assert!(run.requests.is_empty());
}

#[test]
fn a_flag_has_all_fields_that_dist_git_needs() {
    let run = run("complete", "/artifact/id", json!(7));
    assert_eq!(run.result, Ok(()));
    let request = &run.requests[0];
    assert_eq!((request.method.as_str(), request.url.as_str()), ("POST", API));
    assert_eq!(request.header("authorization"), Some("token s3cret"));
    let form = request.text();
    let (start, end) = form.split_once("&uid=").expect("a flag has an id");
    assert_eq!(
        start,
        "username=Fedora+CI&comment=fedora-ci.dist-git.functional%3A+passed\
         &url=https%3A%2F%2Fci.example%2F7%2F"
    );
    assert_eq!(&end[32..], "&status=success&percent=100");
    assert_eq!(run.note("flag"), Some("bull#7 success"));
}

#[test]
fn all_states_of_one_test_share_a_flag() {
    let uid =
        |run: Run| run.requests[0].text().split("uid=").nth(1).map(|end| end[..32].to_owned());
    let queued = uid(run("queued", "/test/result", Value::Null));
    assert_eq!(queued, uid(run("running", "/test/result", Value::Null)));
    assert_eq!(queued, uid(run("complete", "/run/url", json!("https://ci.example/8/"))));
    assert_ne!(queued, uid(run("queued", "/test/category", json!("static-analysis"))));
    assert_ne!(queued, uid(run("queued", "/artifact/commit_hash", json!("ff"))));
}

#[test]
fn the_status_follows_state_and_result() {
    check("queued", "", "pending");
    check("running", "", "pending");
    check("complete", "passed", "success&percent=100");
    check("complete", "info", "success&percent=100");
    check("complete", "failed", "failure&percent=0");
    check("complete", "needs_inspection", "failure&percent=0");
    check("error", "", "error");
}

#[test]
fn the_flag_of_an_error_has_its_reason() {
    let mut body = ci_run();
    body["error"] = json!({"reason": "no machine"});
    let run = test::message("org.centos.prod.ci.dist-git-pr.test.error", body.to_string())
        .secret("pagure_token", "s3cret")
        .respond("POST", API, 200, "{}")
        .run(flag_ci_pr);
    assert!(run.requests[0].text().contains("functional%3A+no+machine&"));
}

#[test]
fn unknown_states_and_results_are_rejected() {
    let result = |state, place, value| run(state, place, value).result;
    let place = "/test/result";
    assert_eq!(result("complete", place, json!("odd")), reject("ci has no result `odd`"));
    assert_eq!(result("complete", place, Value::Null), reject("a complete test without a result"));
    assert_eq!(result("paused", place, Value::Null), reject("ci has no state `paused`"));
    assert_eq!(
        result("complete", "/artifact/id", json!("7/../8")),
        reject("`\"7/../8\"` is not the number of a pull request")
    );
}

#[test]
fn the_number_of_a_pull_request_may_be_a_string() {
    assert_eq!(run("complete", "/artifact/id", json!("7")).note("flag"), Some("bull#7 success"));
}

#[test]
fn artifacts_other_than_dist_git_pull_requests_are_skipped() {
    check_skipped("/artifact/type", json!("koji-build"), "artifact `koji-build`");
    let reason = "the pull request is not in dist-git";
    for elsewhere in [
        "https://pagure.io/rpms/bull",
        "https://src.fedoraproject.org/forks/ada/rpms/bull",
        "https://src.fedoraproject.org/rpms/../bull",
    ] {
        check_skipped("/artifact/repository", json!(elsewhere), reason);
    }
}

#[test]
fn a_server_error_of_pagure_asks_for_a_retry() {
    let run = run_answered("complete", "/artifact/id", json!(7), 500);
    assert_eq!(run.result, retry(format!("POST {API} answered 500")));
}

#[test]
fn a_missing_field_is_rejected() {
    let run = test::message("org.centos.prod.ci.dist-git-pr.test.queued", "{}").run(flag_ci_pr);
    let Err(Failure::Reject(reason)) = run.result else { panic!("{:?}", run.result) };
    assert!(reason.starts_with("body does not fit the task: missing field `artifact`"), "{reason}");
}
