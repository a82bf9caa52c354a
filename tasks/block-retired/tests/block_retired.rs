//! Tests of the task `block-retired`: for which pushes the task emits a message.

use loopabull_task::test::{self, Run};
use loopabull_task::{Failure, reject};
use serde_json::{Value, json};

use crate::block_retired;

const TOPIC: &str = "org.fedoraproject.prod.git.receive";

fn push(files: &Value) -> Value {
    json!({
        "commit": {
            "agent": "ada",
            "branch": "rawhide",
            "namespace": "rpms",
            "repo": "fish",
            "rev": "00112233445566778899aabbccddeeff00112233",
            "stats": {"files": files, "total": {"additions": 1, "deletions": 0, "files": 1}},
            "summary": "no longer needed",
        },
    })
}

fn run(topic: &str, body: &Value) -> Run {
    test::message(topic, body.to_string()).run(block_retired)
}

fn check(files: &Value, retired: bool) {
    let run = run(TOPIC, &push(files));
    assert_eq!(run.result, Ok(()));
    assert_eq!(!run.emitted.is_empty(), retired);
    assert_eq!(run.note("retired").is_some(), retired);
}

#[test]
fn a_retirement_is_emitted_with_the_fields_that_the_playbook_needs() {
    let files = json!({"dead.package": {"additions": 1, "deletions": 0, "lines": 1}});
    let run = run("org.fedoraproject.stg.git.receive", &push(&files));
    assert_eq!(run.result, Ok(()));
    assert_eq!(run.emitted.len(), 1);
    assert_eq!(run.emitted[0].topic, "org.fedoraproject.stg.block.retired");
    let body = json!({"package": "fish", "branch": "rawhide", "summary": "no longer needed"});
    assert_eq!(run.emitted[0].body, body);
    assert_eq!(run.note("retired"), Some("fish@rawhide"));
}

#[test]
fn a_push_that_changes_other_files_has_no_effect() {
    let run = run(TOPIC, &push(&json!({"fish.spec": {"additions": 3, "deletions": 1}})));
    assert_eq!(run.result, Ok(()));
    assert!(run.emitted.is_empty() && run.log.is_empty() && run.notes.is_empty());
}

#[test]
fn a_deleted_dead_package_file_is_no_retirement() {
    check(&json!({"dead.package": {"additions": 0, "deletions": 1, "lines": 1}}), false);
}

#[test]
fn a_dead_package_file_without_line_counts_is_a_retirement() {
    check(&json!({"dead.package": {"additions": 0, "deletions": 0, "lines": 0}}), true);
    check(&json!({"dead.package": {}}), true);
}

#[test]
fn similar_file_names_are_no_retirement() {
    check(&json!({"doc/dead.package": {"additions": 1}, "dead.package.txt": {}}), false);
}

#[test]
fn other_namespaces_are_ignored() {
    let mut body = push(&json!({"dead.package": {"additions": 1}}));
    body["commit"]["namespace"] = "modules".into();
    assert!(run(TOPIC, &body).emitted.is_empty());
    body["commit"].as_object_mut().expect("the value is a JSON object").remove("namespace");
    assert_eq!(run(TOPIC, &body).emitted.len(), 1);
}

#[test]
fn a_push_without_files_succeeds() {
    let mut body = push(&json!({}));
    body["commit"].as_object_mut().expect("the value is a JSON object").remove("stats");
    assert_eq!(run(TOPIC, &body).result, Ok(()));
}

#[test]
fn a_retirement_on_another_topic_is_rejected() {
    let run = run("org.example.push", &push(&json!({"dead.package": {}})));
    assert_eq!(run.result, reject("`org.example.push` is not a topic of dist-git"));
}

#[test]
fn a_push_without_a_commit_is_rejected() {
    let Err(Failure::Reject(reason)) = run(TOPIC, &json!({})).result else {
        panic!("a push without a commit is not rejected")
    };
    assert!(reason.starts_with("body does not fit the task: missing field `commit`"), "{reason}");
}

#[test]
fn recorded_cases_have_the_expected_results() {
    test::cases(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases"), block_retired);
}
