//! The example tasks in Python and JavaScript: the same world, and the same to an operator as
//! `greet` in Rust.

use crate::bed::{Bed, message, text};

/// Runs a message through one task, and returns what was printed, but for what it used.
fn run(task: &str, msg: &str) -> String {
    let bed = Bed::new();
    bed.add_example(task).write("message.json", message("m-1", "org.example.prod.said.new", msg));
    let output = bed.run(&["test", task, "message.json"]);
    let said = text(&output.stdout) + &text(&output.stderr);
    let lines = said.lines().filter(|line| !line.starts_with("used: "));
    lines.map(|line| format!("{line}\n")).collect()
}

/// Runs a message that the task refuses, and looks at the outcome: the one line that there is.
fn check(task: &str, msg: &str, outcome: &str) {
    let said = run(task, msg);
    let expected = format!("{task} on message m-1: {outcome}");
    assert!(said.starts_with(&expected), "`{expected}` does not begin:\n{said}");
}

fn greets(task: &str) {
    let said = run(task, r#"{"from":"Zoë","text":"one two"}"#);
    let expected = format!(
        "info: Good day, Zoë! topic=org.example.prod.said.new words=2\nnote: words = 2\n\
         {task} on message m-1: success\n"
    );
    assert!(said.starts_with(&expected), "`{expected}` does not begin:\n{said}");
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
