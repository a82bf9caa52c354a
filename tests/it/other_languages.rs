//! The example tasks in Python and JavaScript: the same world, and the same to an operator as
//! `greet` in Rust.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::bed::{Bed, message, text};

/// Runs a message through one task, and returns what was printed.
///
/// An interpreter takes a minute or two to compile in a debug build, so the compiled ones are kept from
/// test to test and from one run of the tests to the next, and are made one at a time.
fn run(task: &str, msg: &str) -> String {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let state = Path::new(env!("CARGO_TARGET_TMPDIR")).join("other-languages");
    let bed = Bed::new();
    bed.add_example(task).write("message.json", message("m-1", "org.example.prod.said.new", msg));
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let output = bed.run(&["--state", state.to_str().unwrap(), "test", task, "message.json"]);
    text(&output.stdout) + &text(&output.stderr)
}

/// Runs a message that the task refuses, and looks at the outcome.
fn check(task: &str, msg: &str, outcome: &str) {
    let said = run(task, msg);
    let expected = format!("{task} on message m-1: {outcome}");
    assert!(said.contains(&format!("\n{expected}")), "`{expected}` is not in:\n{said}");
    assert!(!said.contains("info: "), "it greeted:\n{said}");
}

fn greets(task: &str) {
    let said = run(task, r#"{"from":"Zoë","text":"one two"}"#);
    let expected =
        "info: Good day, Zoë! topic=org.example.prod.said.new words=2\nnote: words = 2\n";
    assert!(said.starts_with(expected), "`{expected}` does not begin:\n{said}");
    let expected = format!("\n{task} on message m-1: success\n");
    assert!(said.ends_with(&expected), "`{expected}` does not end:\n{said}");
}

fn rejects_a_greeting_without_words(task: &str) {
    check(task, r#"{"from":"Zoë","text":" "}"#, "reject: `Zoë` said nothing\n");
    let missing = "reject: body does not fit the task: missing field `text`\n";
    check(task, r#"{"from":"Zoë"}"#, missing);
}

#[test]
fn python_greets() {
    greets("greet-python");
}

#[test]
fn python_rejects_a_greeting_without_words() {
    rejects_a_greeting_without_words("greet-python");
}

#[test]
fn exception_in_python_is_an_outcome_with_its_text() {
    let outcome = "retry: AttributeError: 'int' object has no attribute 'split' (line ";
    check("greet-python", r#"{"from":"Zoë","text":7}"#, outcome);
}

#[test]
fn javascript_greets() {
    greets("greet-javascript");
}

#[test]
fn javascript_rejects_a_greeting_without_words() {
    rejects_a_greeting_without_words("greet-javascript");
}

#[test]
fn exception_in_javascript_is_an_outcome_with_its_text() {
    let outcome = "retry: TypeError: not a function\n";
    check("greet-javascript", r#"{"from":"Zoë","text":7}"#, outcome);
}
