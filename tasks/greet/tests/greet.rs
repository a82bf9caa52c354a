//! Tests of the task `greet`: its log lines, notes and rejections.

use loopabull_task::{Failure, test};

use crate::greet;

const TOPIC: &str = "org.example.dev.greeting.said";

#[test]
fn a_greeting_is_answered_and_its_words_are_counted() {
    let run = test::message(TOPIC, r#"{"from": "ada", "text": "good morning  all"}"#).run(greet);
    assert_eq!(run.result, Ok(()));
    assert_eq!(
        run.log[0].to_string(),
        "info: Hello, ada! topic=org.example.dev.greeting.said words=3"
    );
    assert_eq!(run.note("words"), Some("3"));
}

#[test]
fn the_manifest_sets_the_answer() {
    let run = test::message(TOPIC, r#"{"from": "ada", "text": "moin"}"#)
        .config("greeting", "Good day")
        .run(greet);
    assert_eq!(run.log[0].text, "Good day, ada!");
}

#[test]
fn a_greeting_without_words_is_rejected() {
    let run = test::message(TOPIC, r#"{"from": "ada", "text": " "}"#).run(greet);
    assert_eq!(run.result, Err(Failure::Reject("`ada` said nothing".to_owned())));
    assert!(run.log.is_empty());
}

#[test]
fn a_greeting_without_a_sender_is_rejected() {
    let run = test::message(TOPIC, r#"{"text": "hello"}"#).run(greet);
    let Err(Failure::Reject(reason)) = run.result else {
        panic!("{:?}", run.result);
    };
    assert!(reason.starts_with("body does not fit the task: missing field `from`"));
}
