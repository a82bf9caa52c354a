//! Tests of the task `flag-commit-build`: which flag the task sets on a commit.

use loopabull_task::log::Level;
use loopabull_task::test::{self, Run};
use loopabull_task::{Failure, reject, retry};
use serde_json::{Value, json};

use crate::flag_commit_build;

const COMMIT: &str = "00112233445566778899aabbccddeeff00112233";

fn state_change() -> Value {
    json!({
        "attribute": "state",
        "build_id": 2001,
        "epoch": null,
        "instance": "primary",
        "name": "bull",
        "new": 1,
        "old": 0,
        "owner": "ada",
        "release": "1.fc44",
        "request": [
            format!("git+https://src.fedoraproject.org/rpms/bull.git#{COMMIT}"),
            "rawhide",
            {},
        ],
        "task_id": 3001,
        "version": "2.0",
    })
}

const TOPIC: &str = "org.fedoraproject.prod.buildsys.build.state.change";

fn api() -> String {
    format!("https://src.fedoraproject.org/api/0/rpms/bull/c/{COMMIT}/flag")
}

/// Runs the task on a message in which `field` has another value.
fn run(field: &str, value: Value) -> Run {
    run_answered(field, value, 200)
}

fn run_answered(field: &str, value: Value, status: u16) -> Run {
    let mut body = state_change();
    body[field] = value;
    test::message(TOPIC, body.to_string())
        .secret("pagure_token", "s3cret")
        .respond("POST", api(), status, "{}")
        .run(flag_commit_build)
}

/// A server would take such a name for another path.
#[test]
fn a_package_whose_name_is_a_path_is_rejected() {
    for name in ["..", "%2e%2e", "."] {
        let source = format!("https://src.fedoraproject.org/rpms/{name}#{COMMIT}");
        let run = run("request", json!([source]));
        assert_eq!(run.result, reject(format!("`{name}` cannot be a part of a URL's path")));
        assert!(run.requests.is_empty());
    }
}

fn check_status(state: i64, status: &str) {
    let run = run("new", json!(state));
    assert_eq!(run.result, Ok(()));
    let flag = format!("bull@{COMMIT} {status}");
    assert_eq!(run.note("flag"), Some(flag.as_str()));
    assert!(run.requests[0].text().contains(&format!("&status={status}")));
}

fn check_skipped(field: &str, value: Value, reason: &str) {
    let run = run(field, value);
    assert_eq!(run.result, Ok(()));
    assert_eq!(run.note("skipped"), Some(reason));
    assert_eq!(run.note("flag"), None);
    assert!(run.requests.is_empty());
    assert!(run.log.iter().all(|line| line.level < Level::Info));
}

#[test]
fn a_flag_has_all_fields_that_dist_git_needs() {
    let run = run("new", json!(1));
    let request = &run.requests[0];
    assert_eq!((request.method.as_str(), &request.url), ("POST", &api()));
    assert_eq!(request.header("authorization"), Some("token s3cret"));
    assert_eq!(
        request.text(),
        "username=Koji&comment=Build+bull-2.0-1.fc44+completed\
         &url=https%3A%2F%2Fkoji.fedoraproject.org%2Fkoji%2Ftaskinfo%3FtaskID%3D3001\
         &uid=koji-build-2001&status=success&percent=100"
    );
}

#[test]
fn a_flag_is_logged_without_the_secret() {
    let run = run("new", json!(1));
    assert_eq!(
        run.log[0].to_string(),
        format!(
            "info: build bull-2.0-1.fc44 completed package=bull commit={COMMIT} status=success \
             url=https://koji.fedoraproject.org/koji/taskinfo?taskID=3001 uid=koji-build-2001"
        )
    );
}

#[test]
fn a_server_error_of_pagure_asks_for_a_retry() {
    let run = run_answered("new", json!(1), 503);
    assert_eq!(run.result, retry(format!("POST {} answered 503", api())));
    assert_eq!(run.note("flag"), None);
}

#[test]
fn a_flag_that_pagure_refuses_is_rejected() {
    let run = run_answered("new", json!(1), 401);
    assert_eq!(run.result, reject(format!("POST {} answered 401", api())));
}

#[test]
fn the_token_is_needed_only_for_a_flag() {
    let run = |state: i64| {
        let mut body = state_change();
        body["new"] = state.into();
        test::message(TOPIC, body.to_string()).run(flag_commit_build)
    };
    assert_eq!(run(2).result, Ok(()));
    let Err(Failure::Reject(reason)) = run(1).result else {
        panic!("a run without the token is not rejected")
    };
    assert!(reason.contains("`pagure_token = { file = \"...\" }`"), "{reason}");
}

#[test]
fn recorded_cases_have_the_expected_results() {
    test::cases(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases"), flag_commit_build);
}

#[test]
fn a_running_build_is_pending() {
    check_status(0, "pending");
}

#[test]
fn an_unfinished_build_has_no_percentage() {
    let run = run("new", json!(0));
    assert!(!run.requests[0].text().contains("percent"));
}

#[test]
fn a_complete_build_is_a_success() {
    check_status(1, "success");
}

#[test]
fn a_failed_build_is_a_failure() {
    check_status(3, "failure");
}

#[test]
fn a_canceled_build_is_canceled() {
    check_status(4, "canceled");
}

#[test]
fn a_deleted_build_is_skipped() {
    check_skipped("new", json!(2), "the build was deleted");
}

#[test]
fn an_unknown_state_is_rejected() {
    assert_eq!(run("new", json!(9)).result, reject("koji has no build state 9"));
}

#[test]
fn a_secondary_koji_instance_is_skipped() {
    check_skipped("instance", json!("riscv"), "koji instance `riscv`");
}

#[test]
fn an_imported_build_is_skipped() {
    check_skipped("request", Value::Null, "the build was imported");
    check_skipped("task_id", Value::Null, "the build was imported");
}

#[test]
fn a_build_from_another_source_is_skipped() {
    let reason = "the build is not from a commit in dist-git";
    check_skipped("request", json!(["cli-build/bull.src.rpm"]), reason);
    check_skipped("request", json!([{}]), reason);
    check_skipped("request", json!([]), reason);
}

#[test]
fn a_missing_field_is_rejected() {
    let mut body = state_change();
    body.as_object_mut().expect("the value is a JSON object").remove("name");
    let run = test::message("org.example", body.to_string()).run(flag_commit_build);
    let Err(Failure::Reject(reason)) = run.result else {
        panic!("{:?}", run.result);
    };
    assert!(reason.starts_with("body does not fit the task: missing field `name`"), "{reason}");
}

#[test]
fn the_manifest_sets_the_sites() {
    let mut body = state_change();
    body["request"][0] = format!("git+https://git.example/rpms/bull.git#{COMMIT}").into();
    let api = format!("https://git.example/api/0/rpms/bull/c/{COMMIT}/flag");
    let run = test::message("org.example", body.to_string())
        .config("dist_git", "https://git.example")
        .config("koji", "https://koji.example")
        .config("username", "Builder")
        .secret("pagure_token", "s3cret")
        .respond("POST", api, 200, "{}")
        .run(flag_commit_build);
    assert_eq!(run.result, Ok(()));
    let form = run.requests[0].text();
    assert!(form.starts_with("username=Builder&"), "{form}");
    assert!(form.contains("&url=https%3A%2F%2Fkoji.example%2Ftaskinfo%3FtaskID%3D3001&"), "{form}");
}
