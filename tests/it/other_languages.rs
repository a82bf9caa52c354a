//! The example tasks in Python and JavaScript. They are built for the same WIT world as `greet` in Rust, and
//! an operator sees no difference.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::test_host::{TestHost, message, text};

/// Runs one task on a message and returns the output.
///
/// The component of such a task contains an interpreter, and a debug build of the host takes a minute or two
/// to compile it. So all tests share a state directory, which keeps the compiled components for later test
/// runs too. Only one component is compiled at a time.
fn run(task: &str, msg: &str) -> String {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let state = Path::new(env!("CARGO_TARGET_TMPDIR")).join("other-languages");
    let host = TestHost::new();
    host.add_example(task).write("message.json", message("m-1", "org.example.prod.said.new", msg));
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let output = host.run(&["--state", state.to_str().unwrap(), "test", task, "message.json"]);
    text(&output.stdout) + &text(&output.stderr)
}

/// Runs a task on a message that it refuses, and checks the outcome.
fn check(task: &str, msg: &str, outcome: &str) {
    let said = run(task, msg);
    let expected = format!("{task} on message m-1: {outcome}");
    assert!(said.contains(&format!("\n{expected}")), "`{expected}` is not in:\n{said}");
    assert!(!said.contains("info: "), "the task greeted:\n{said}");
}

fn greets(task: &str) {
    let said = run(task, r#"{"from":"Zoë","text":"one two"}"#);
    let expected =
        "info: Good day, Zoë! topic=org.example.prod.said.new words=2\nnote: words = 2\n";
    assert!(said.starts_with(expected), "`{expected}` is not at the start of:\n{said}");
    let expected = format!("\n{task} on message m-1: success\n");
    assert!(said.ends_with(&expected), "`{expected}` is not at the end of:\n{said}");
}

fn rejects_a_greeting_without_words(task: &str) {
    check(task, r#"{"from":"Zoë","text":" "}"#, "reject: `Zoë` said nothing\n");
    let missing = "reject: body does not fit the task: missing field `text`\n";
    check(task, r#"{"from":"Zoë"}"#, missing);
}

#[test]
fn the_python_task_greets() {
    greets("greet-python");
}

#[test]
fn the_python_task_rejects_a_greeting_without_words() {
    rejects_a_greeting_without_words("greet-python");
}

#[test]
fn the_text_of_a_python_exception_is_in_the_outcome() {
    let outcome = "retry: AttributeError: 'int' object has no attribute 'split' (line ";
    check("greet-python", r#"{"from":"Zoë","text":7}"#, outcome);
}

#[test]
fn the_javascript_task_greets() {
    greets("greet-javascript");
}

#[test]
fn the_javascript_task_rejects_a_greeting_without_words() {
    rejects_a_greeting_without_words("greet-javascript");
}

#[test]
fn the_text_of_a_javascript_exception_is_in_the_outcome() {
    let outcome = "retry: TypeError: not a function\n";
    check("greet-javascript", r#"{"from":"Zoë","text":7}"#, outcome);
}
