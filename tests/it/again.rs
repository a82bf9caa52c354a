//! A run is repeated by a command, by a program and on the page, with its message or with an edited copy.

use loopabull_model::Run;
use loopabull_testbed::{Browser, Colours, Rabbit};
use serde_json::{Value, json};

use crate::actions::{LOOK, OPERATE, act, post};
use crate::browser::{press_button_in, wait_until_said};
use crate::test_host::{Daemon, TestHost, message, text, wait_for};

fn site(flags: &[&str]) -> (TestHost, Daemon) {
    let host = TestHost::new();
    host.add_guest("good", "good", "", "i32.const 0");
    host.add_guest("bad", "bad", "[retry]\nmax_attempts = 1\n", "unreachable");
    host.write("operate", OPERATE);
    host.write("loopabull.toml", "operate_token_file = 'operate'\n");
    let own = ["--config", "loopabull.toml", "--workers", "1"];
    let daemon = host.start(&[&own[..], flags].concat());
    (host, daemon)
}

/// Waits until there are this many runs. Returns the newest first.
fn runs(host: &TestHost, count: usize) -> Vec<Run> {
    wait_for("the runs", || {
        let mut runs = host.runs();
        runs.sort_by_key(|run| std::cmp::Reverse(run.started_at_ms));
        (runs.len() == count).then_some(runs)
    })
}

fn body_of(host: &TestHost, run: &Run) -> Value {
    let printed = host.run(&["runs", "again", run.id.as_str(), "--print"]);
    assert!(printed.status.success(), "{printed:?}");
    serde_json::from_slice(&printed.stdout).unwrap()
}

fn check_command(flags: &[&str]) {
    let (host, daemon) = site(flags);
    let inject = [&["inject", "one.json"], flags].concat();
    let body = "{\"n\":12345678901234567890.50,\"t\":\"\u{200f}x\u{202e}\"}";
    host.write("one.json", message("m-1", "bad", body));
    assert!(host.run(&inject).status.success());
    let first = runs(&host, 1).remove(0);
    assert!(!first.outcome.is_success());
    // The task is mended.
    host.add_guest("bad", "elsewhere", "", "i32.const 0");
    wait_for("the reload", || host.log().contains("changed: bad").then_some(()));
    let again = |more: &[&str]| {
        let output = host.run(&[&["runs", "again", first.id.as_str()], more, flags].concat());
        (text(&output.stdout) + &text(&output.stderr), output.status.success())
    };
    // The message still has its task, although the task wants another topic by now.
    assert_eq!(again(&[]), ("message m-1 is queued for `bad`\n".to_owned(), true));
    let second = runs(&host, 2).remove(0);
    assert!(second.outcome.is_success(), "{second:?}");
    assert_eq!((second.message_id.as_str(), second.attempt), ("m-1", 1));
    assert_eq!(second.entry.again_of(), Some(first.id.clone()));
    // Another time, and an edited copy.
    assert!(again(&[]).1);
    runs(&host, 3);
    let body = text(&host.run(&["runs", "again", first.id.as_str(), "--print"]).stdout);
    assert!(body.contains("12345678901234567890.50"), "the number keeps its digits: {body}");
    host.write("body.json", body.replace("12345678901234567890.50", "2"));
    let (said, is_done) = again(&["--body", "body.json"]);
    assert!(is_done && said.starts_with("message m-1.edited-"), "{said}");
    let copy = runs(&host, 4).remove(0);
    assert!(copy.message_id.as_str().starts_with("m-1.edited-"), "{copy:?}");
    // No character of the message is lost on the way over a terminal.
    assert_eq!(body_of(&host, &copy), json!({"n": 2, "t": "\u{200f}x\u{202e}"}));
    assert!(!body.contains('\u{202e}'), "{body}");
    assert!(
        text(&host.run(&["runs", "show", copy.id.as_str()]).stdout).contains(first.id.as_str())
    );
    // The repetition of a repetition is one of that.
    assert!(host.run(&[&["runs", "again", copy.id.as_str()], flags].concat()).status.success());
    assert_eq!(runs(&host, 5)[0].entry.again_of(), Some(copy.id));

    host.write("bad.json", "[1]");
    let (said, is_done) = again(&["--body", "bad.json"]);
    assert!(!is_done && said.contains("this cannot be the body of a message: "), "{said}");
    let unknown = host.run(&["runs", "again", "nothing"]);
    assert!(text(&unknown.stderr).contains("no run has the id `nothing`"), "{unknown:?}");
    std::fs::remove_file(host.path("tasks/bad.wasm")).unwrap();
    wait_for("the task to go", || {
        (!daemon.get("/api/v1/tasks").1.contains("\"bad\"")).then_some(())
    });
    let (said, is_done) = again(&[]);
    assert!(!is_done && said.contains("task `bad` is not installed"), "{said}");
    let audit = text(&host.run(&["audit"]).stdout);
    assert_eq!(audit.matches("run again").count(), 4, "{audit}");
    daemon.stop();
}

#[test]
fn a_run_is_repeated_with_the_embedded_queue() {
    check_command(&[]);
}

#[test]
fn a_run_is_repeated_with_rabbitmq() {
    let vhost = Rabbit::shared().vhost();
    check_command(&["--amqp-url", &vhost.url()]);
}

#[test]
fn a_run_is_repeated_by_a_program_and_on_the_page() {
    let (host, daemon) = site(&[]);
    host.inject(&[message("m-1", "good", r#"{"n":1}"#)]);
    let first = runs(&host, 1).remove(0);
    let id = first.id.as_str();
    let (status, answer) = post(&daemon, "runs/again", &[], &json!({"run": id}).to_string());
    assert_eq!(status, 401, "{answer}");
    let look = format!("Bearer {LOOK}");
    let wrong = [("Authorization", look.as_str())];
    assert_eq!(post(&daemon, "runs/again", &wrong, &json!({"run": id}).to_string()).0, 401);
    for (body, expected) in [
        (json!({"run": id}), 200),
        (json!({"run": id, "body": "{\"n\":2}"}), 200),
        (json!({"run": id, "body": "{"}), 400),
        (json!({"run": id, "body": "x".repeat(5 << 20)}), 413),
        (json!({"run": "nothing"}), 404),
        (json!({}), 422),
    ] {
        let (status, answer) = act(&daemon, "runs/again", &body);
        assert_eq!(status, expected, "{answer}");
    }
    runs(&host, 3);
    let audit = text(&host.run(&["audit"]).stdout);
    assert_eq!(audit.matches("run again").count(), 2, "{audit}");
    assert_eq!(runs(&host, 3).pop().unwrap(), first, "the original stays as it is");

    let browser = Browser::start(1280, 900, Colours::Light);
    // What was written stays while the browser asks for the token.
    browser.open(&format!("http://{}/runs/{id}", daemon.address()));
    browser.run("document.querySelector('main details').open = true");
    browser.run("document.querySelector('#edited').value = '{\"n\": 9}'");
    press_button_in(&browser, "p", "Run the copy", "Run the copy");
    browser.accept_dialog(None);
    wait_for("the sign-in", || browser.url().contains("/sign-in?to=").then_some(()));
    let page = format!("http://operator:{OPERATE}@{}/sign-in?to=/runs/{id}", daemon.address());
    browser.open(&page);
    browser
        .wait_until("the text", "return document.querySelector('#edited').value === '{\"n\": 9}'");
    browser.open(&page);
    press_button_in(&browser, "p", "Run again", "Run again");
    assert_eq!(browser.accept_dialog(None), "Run task good again with this message?");
    wait_until_said(&browser, "message m-1 is queued for `good`");
    runs(&host, 4);
    browser.run("document.querySelector('main details').open = true");
    browser.run("document.querySelector('#edited').value = '{\"n\": 3}'");
    press_button_in(&browser, "p", "Run the copy", "Run the copy");
    assert_eq!(browser.accept_dialog(None), "Run task good with the edited copy?");
    wait_until_said(&browser, "message m-1.edited-");
    let copy = runs(&host, 5).remove(0);
    assert_eq!(body_of(&host, &copy), json!({"n": 3}));
    // Each page links to the other.
    browser.open(&page);
    assert!(browser.text().contains("Repetitions of this run"), "{}", browser.text());
    let linked = format!("return !!document.querySelector('a[href=\"/runs/{}\"]')", copy.id);
    assert_eq!(browser.run(&linked), true);
    browser.open(&format!("http://{}/runs/{}", daemon.address(), copy.id));
    assert_eq!(
        browser.run(&format!("return !!document.querySelector('a[href=\"/runs/{id}\"]')")),
        true
    );
    // A body that cannot be one is told, and what was written stays.
    browser.open(&page);
    browser.run("document.querySelector('main details').open = true");
    browser.run("document.querySelector('#edited').value = 'no JSON'");
    press_button_in(&browser, "p", "Run the copy", "Run the copy");
    browser.accept_dialog(None);
    wait_until_said(&browser, "this cannot be the body of a message");
    assert_eq!(browser.run("return document.querySelector('#edited').value"), "no JSON");
    daemon.stop();
}
