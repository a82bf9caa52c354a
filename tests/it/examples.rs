//! The example tasks and playbooks. `check` finds no problem in them, and each handles an invented message as
//! its description promises.

use crate::test_host::{TestHost, message, repository, text};

/// The example components that are written in Rust.
const COMPONENTS: [&str; 5] =
    ["block-retired", "digest", "flag-ci-pr", "flag-commit-build", "greet"];

/// Returns a test host with the example components.
fn host() -> TestHost {
    let host = TestHost::new();
    for name in COMPONENTS {
        host.add_example(name);
    }
    host
}

/// Runs the only task of this topic on a message, and returns the output.
fn check(topic: &str, msg: &str) -> String {
    check_task(topic, topic, msg)
}

/// Runs this task on a message, and returns the output.
fn check_task(task: &str, topic: &str, msg: &str) -> String {
    let host = host();
    host.write("message.json", message("m-1", topic, msg));
    let mut command = host.command(&["test", task, "message.json"]);
    command.arg("--playbooks").arg(repository().join("playbooks"));
    let output = command.output().unwrap();
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn check_accepts_all_examples() {
    let host = host();
    let mut command = host.command(&["check"]);
    command.arg("--playbooks").arg(repository().join("playbooks"));
    let output = command.output().unwrap();
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said} (if a task is not built: run `cargo tasks`)");
    let playbooks = ["org.example.demo.hello", "retire-package"];
    for name in COMPONENTS.iter().chain(&playbooks) {
        assert!(
            said.lines().any(|line| line.starts_with(&format!("{name} "))),
            "{name} is not in:\n{said}"
        );
    }
}

#[test]
fn greet_greets_and_rejects_an_unusable_body() {
    let said = check("org.example.prod.greeting.new", r#"{"from":"Ada","text":"one two"}"#);
    assert!(said.contains(", Ada!"), "{said}");
    assert!(said.contains("note: words = 2"), "{said}");
    assert!(said.ends_with("greet on message m-1: success\n"), "{said}");
    let said = check("org.example.prod.greeting.new", r#"{"from":1}"#);
    assert!(said.contains("reject: body does not fit the task"), "{said}");
}

/// A deleted build gets no flag. Only this case is tested here, because for other builds the task would send
/// a flag to the real Pagure. `tests/it/tasks.rs` tests them with a simulated Pagure.
#[test]
fn flag_commit_build_skips_a_deleted_build() {
    let build = r#"{"build_id":7,"name":"fish","version":"4.0","release":"1.fc99","epoch":null,
        "instance":"primary","old":1,"new":2,"owner":"ada","task_id":11,"request":null}"#;
    let topic = "org.fedoraproject.prod.buildsys.build.state.change";
    let said = check_task("flag-commit-build", topic, build);
    assert!(said.contains("note: skipped = the build was deleted"), "{said}");
}

#[test]
fn block_retired_finds_retirements_among_pushes() {
    let push = |files: &str| {
        format!(
            r#"{{"commit":{{"namespace":"rpms","repo":"fish","branch":"rawhide",
                "summary":"no longer needed","stats":{{"files":{files}}}}}}}"#
        )
    };
    let topic = "org.fedoraproject.prod.git.receive";
    let said = check(topic, &push(r#"{"dead.package":{"additions":1}}"#));
    assert!(said.contains("note: retired = fish@rawhide"), "{said}");
    let said = check(topic, &push(r#"{"fish.spec":{"additions":1}}"#));
    assert!(!said.contains("note: ") && said.ends_with("success\n"), "{said}");
}

#[test]
fn the_playbooks_use_the_message() {
    let said = check("org.example.demo.hello", r#"{"from":"Ada","text":"{{ 1 + 1 }}"}"#);
    assert!(said.contains("Ada says: {{ 1 + 1 }} (attempt 1)"), "{said}");
    let retired = r#"{"package":"fish","branch":"rawhide","summary":"no longer needed"}"#;
    let said = check("org.fedoraproject.prod.block.retired", retired);
    assert!(said.contains("koji block-pkg rawhide fish (no longer needed)"), "{said}");
}
