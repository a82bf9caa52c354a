//! `block-retired` as its users see it: a push in, a message out if it retires a package.

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
fn retirement_is_sent_with_what_the_playbook_needs() {
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
fn push_that_changes_other_files_is_settled_in_silence() {
    let run = run(TOPIC, &push(&json!({"fish.spec": {"additions": 3, "deletions": 1}})));
    assert_eq!(run.result, Ok(()));
    assert!(run.emitted.is_empty() && run.log.is_empty() && run.notes.is_empty());
}

#[test]
fn package_that_comes_back_is_not_retired() {
    check(&json!({"dead.package": {"additions": 0, "deletions": 1, "lines": 1}}), false);
}

#[test]
fn file_without_lines_or_without_numbers_retires() {
    check(&json!({"dead.package": {"additions": 0, "deletions": 0, "lines": 0}}), true);
    check(&json!({"dead.package": {}}), true);
}

#[test]
fn only_the_file_of_that_very_name_retires() {
    check(&json!({"doc/dead.package": {"additions": 1}, "dead.package.txt": {}}), false);
}

#[test]
fn what_is_not_a_package_is_not_retired() {
    let mut body = push(&json!({"dead.package": {"additions": 1}}));
    body["commit"]["namespace"] = "modules".into();
    assert!(run(TOPIC, &body).emitted.is_empty());
    body["commit"].as_object_mut().expect("is an object").remove("namespace");
    assert_eq!(run(TOPIC, &body).emitted.len(), 1);
}

#[test]
fn push_without_files_is_settled() {
    let mut body = push(&json!({}));
    body["commit"].as_object_mut().expect("is an object").remove("stats");
    assert_eq!(run(TOPIC, &body).result, Ok(()));
}

#[test]
fn retirement_on_another_topic_is_rejected() {
    let run = run("org.example.push", &push(&json!({"dead.package": {}})));
    assert_eq!(run.result, reject("`org.example.push` is not a topic of dist-git"));
}

#[test]
fn push_without_a_commit_is_rejected() {
    let Err(Failure::Reject(reason)) = run(TOPIC, &json!({})).result else { panic!("no commit") };
    assert!(reason.starts_with("body does not fit the task: missing field `commit`"), "{reason}");
}

#[test]
fn recorded_cases_come_out_the_same() {
    test::cases(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases"), block_retired);
}
