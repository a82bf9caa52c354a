//! `greet` as its users see it: log lines, notes and refusals.

use loopabull_task::{Failure, test};

use crate::greet;

const TOPIC: &str = "org.example.dev.greeting.said";

#[test]
fn greeting_is_answered_and_its_words_are_counted() {
    let run = test::message(TOPIC, r#"{"from": "ada", "text": "good morning  all"}"#).run(greet);
    assert_eq!(run.result, Ok(()));
    assert_eq!(
        run.log[0].to_string(),
        "info: Hello, ada! topic=org.example.dev.greeting.said words=3"
    );
    assert_eq!(run.note("words"), Some("3"));
}

#[test]
fn greeting_comes_from_the_manifest() {
    let run = test::message(TOPIC, r#"{"from": "ada", "text": "moin"}"#)
        .config("greeting", "Good day")
        .run(greet);
    assert_eq!(run.log[0].text, "Good day, ada!");
}

#[test]
fn greeting_without_words_is_rejected() {
    let run = test::message(TOPIC, r#"{"from": "ada", "text": " "}"#).run(greet);
    assert_eq!(run.result, Err(Failure::Reject("`ada` said nothing".to_owned())));
    assert!(run.log.is_empty());
}

#[test]
fn greeting_from_nobody_is_rejected() {
    let run = test::message(TOPIC, r#"{"text": "hello"}"#).run(greet);
    let Err(Failure::Reject(reason)) = run.result else {
        panic!("{:?}", run.result);
    };
    assert!(reason.starts_with("body does not fit the task: missing field `from`"));
}
