//! `flag-commit-build` as its users see it: a message of Koji in, a flag out.

use loopabull_task::log::Level;
use loopabull_task::test::{self, Run};
use loopabull_task::{Failure, Result};
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

/// Runs the task on a message with one field changed.
fn run(field: &str, value: Value) -> Run {
    let mut body = state_change();
    body[field] = value;
    test::message("org.fedoraproject.prod.buildsys.build.state.change", body.to_string())
        .run(flag_commit_build)
}

fn check_status(state: i64, status: &str) {
    let run = run("new", json!(state));
    assert_eq!(run.result, Ok(()));
    let flag = format!("bull@{COMMIT} {status}");
    assert_eq!(run.note("flag"), Some(flag.as_str()));
}

fn check_skipped(field: &str, value: Value, reason: &str) {
    let run = run(field, value);
    assert_eq!(run.result, Ok(()));
    assert_eq!(run.note("skipped"), Some(reason));
    assert_eq!(run.note("flag"), None);
    assert!(run.log.iter().all(|line| line.level < Level::Info));
}

fn rejected(reason: &str) -> Result {
    Err(Failure::Reject(reason.to_owned()))
}

#[test]
fn flag_says_all_that_dist_git_needs() {
    let run = run("new", json!(1));
    assert_eq!(
        run.log[0].to_string(),
        format!(
            "info: build bull-2.0-1.fc44 completed package=bull commit={COMMIT} status=success \
             url=https://koji.fedoraproject.org/koji/taskinfo?taskID=3001 \
             uid=koji-build-2001 percent=100"
        )
    );
}

#[test]
fn building_is_pending() {
    check_status(0, "pending");
}

#[test]
fn build_that_has_no_outcome_has_no_percentage() {
    let run = run("new", json!(0));
    assert!(run.log[0].fields.iter().all(|(name, _)| name != "percent"));
}

#[test]
fn complete_is_success() {
    check_status(1, "success");
}

#[test]
fn failed_is_failure() {
    check_status(3, "failure");
}

#[test]
fn canceled_is_canceled() {
    check_status(4, "canceled");
}

#[test]
fn deleted_build_is_skipped() {
    check_skipped("new", json!(2), "the build was deleted");
}

#[test]
fn state_unknown_to_koji_is_rejected() {
    assert_eq!(run("new", json!(9)).result, rejected("koji has no build state 9"));
}

#[test]
fn other_instance_is_skipped() {
    check_skipped("instance", json!("riscv"), "koji instance `riscv`");
}

#[test]
fn imported_build_is_skipped() {
    check_skipped("request", Value::Null, "the build was imported");
    check_skipped("task_id", Value::Null, "the build was imported");
}

#[test]
fn build_from_elsewhere_is_skipped() {
    let reason = "the build is not from a commit in dist-git";
    check_skipped("request", json!(["cli-build/bull.src.rpm"]), reason);
    check_skipped("request", json!([{}]), reason);
    check_skipped("request", json!([]), reason);
}

#[test]
fn missing_field_is_rejected() {
    let mut body = state_change();
    body.as_object_mut().expect("is an object").remove("name");
    let run = test::message("org.example", body.to_string()).run(flag_commit_build);
    let Err(Failure::Reject(reason)) = run.result else {
        panic!("{:?}", run.result);
    };
    assert!(reason.starts_with("body does not fit the task: missing field `name`"), "{reason}");
}

#[test]
fn sites_come_from_the_manifest() {
    let mut body = state_change();
    body["request"][0] = format!("git+https://git.example/rpms/bull.git#{COMMIT}").into();
    let run = test::message("org.example", body.to_string())
        .config("dist_git", "https://git.example")
        .config("koji", "https://koji.example")
        .run(flag_commit_build);
    let url = ("url".to_owned(), "https://koji.example/taskinfo?taskID=3001".to_owned());
    assert!(run.log[0].fields.contains(&url), "{}", run.log[0]);
}
