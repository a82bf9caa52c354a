//! The example tasks in Python and JavaScript: the same world, and the same to an operator as
//! `greet` in Rust.

use crate::bed::{Bed, message, text};

/// A bed with one task, which compiles it once for all that is done in it.
fn bed(task: &str) -> Bed {
    let bed = Bed::new();
    bed.add_example(task);
    bed
}

/// Runs a message through the task, and returns what was printed, but for what it used.
fn run(bed: &Bed, task: &str, msg: &str) -> String {
    bed.write("message.json", message("m-1", "org.example.prod.said.new", msg));
    let output = bed.run(&["test", task, "message.json"]);
    let said = text(&output.stdout) + &text(&output.stderr);
    let lines = said.lines().filter(|line| !line.starts_with("used: "));
    lines.map(|line| format!("{line}\n")).collect()
}

/// Runs a message that the task refuses, and looks at the outcome: the one line that there is.
fn check(bed: &Bed, task: &str, msg: &str, outcome: &str) {
    let said = run(bed, task, msg);
    let expected = format!("{task} on message m-1: {outcome}");
    assert!(said.starts_with(&expected), "`{expected}` does not begin:\n{said}");
}

fn greets(bed: &Bed, task: &str) {
    let said = run(bed, task, r#"{"from":"Zoë","text":"one two"}"#);
    let expected = format!(
        "info: Good day, Zoë! topic=org.example.prod.said.new words=2\nnote: words = 2\n\
         {task} on message m-1: success\n"
    );
    assert!(said.starts_with(&expected), "`{expected}` does not begin:\n{said}");
}

fn rejects_what_is_no_greeting(bed: &Bed, task: &str) {
    check(bed, task, r#"{"from":"Zoë","text":" "}"#, "reject: `Zoë` said nothing\n");
    let missing = "reject: body does not fit the task: missing field `text`\n";
    check(bed, task, r#"{"from":"Zoë"}"#, missing);
}

#[test]
fn a_task_in_python_greets_rejects_and_tells_of_its_exceptions() {
    let task = "greet-python";
    let bed = bed(task);
    greets(&bed, task);
    rejects_what_is_no_greeting(&bed, task);
    let outcome = "retry: AttributeError: 'int' object has no attribute 'split' (line ";
    check(&bed, task, r#"{"from":"Zoë","text":7}"#, outcome);
}

#[test]
fn a_task_in_javascript_greets_rejects_and_tells_of_its_exceptions() {
    let task = "greet-javascript";
    let bed = bed(task);
    greets(&bed, task);
    rejects_what_is_no_greeting(&bed, task);
    let outcome = "retry: TypeError: not a function\n";
    check(&bed, task, r#"{"from":"Zoë","text":7}"#, outcome);
}
