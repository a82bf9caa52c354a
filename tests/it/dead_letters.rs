//! The command `dead-letters`: it shows, requeues and drops dead letters by id and by filter.

use loopabull_testbed::Rabbit;
use serde_json::Value;

use crate::test_host::{TestHost, message, text, wait_for};

/// Returns a host with three tasks: one rejects, one traps and is not retried, one succeeds.
fn host() -> TestHost {
    let host = TestHost::new();
    host.add_guest("rejects", "a.one", "", "i32.const 96");
    host.add_guest("traps", "a.two", "[retry]\non_failure = 'dead-letter'", "unreachable");
    host.add_guest("works", "b", "", "i32.const 0");
    host
}

fn run(host: &TestHost, flags: &[&str], arguments: &[&str]) -> (i32, String) {
    let output = host.run(&[arguments, flags].concat());
    let all = format!("{}{}", text(&output.stdout), text(&output.stderr));
    (output.status.code().unwrap(), all)
}

fn list(host: &TestHost, flags: &[&str], filter: &[&str]) -> Vec<Value> {
    let arguments = [&["dead-letters", "list", "--json"], filter].concat();
    let (code, text) = run(host, flags, &arguments);
    assert_eq!(code, 0, "{text}");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn check(flags: &[&str]) {
    let host = host();
    let daemon = host.start(flags);
    let messages: Vec<String> = (0..3)
        .flat_map(|n| {
            ["a.one", "a.two", "b"].map(|topic| message(&format!("{topic}-{n}"), topic, "{}"))
        })
        .collect();
    host.run_with_input(&[&["inject", "-"], flags].concat(), &messages.join("\n"));
    wait_for("six dead letters", || (daemon.depth("dead") == Some(6)).then_some(()));
    daemon.wait_until_idle();

    assert_eq!(list(&host, flags, &[]).len(), 6);
    for (filter, count) in [
        (vec!["--task", "traps"], 3),
        (vec!["--topic", "a.*"], 6),
        (vec!["--topic", "*.two"], 3),
        (vec!["--reason", "reject: no good"], 3),
        (vec!["--reason", "nothing of the kind"], 0),
        (vec!["--older-than", "1h"], 0),
        (vec!["--older-than", "0s", "--task", "rejects"], 3),
        (vec!["--queue", "workers"], 6),
    ] {
        assert_eq!(list(&host, flags, &filter).len(), count, "{filter:?}");
    }
    let trapped = &list(&host, flags, &["--task", "traps"])[0];
    let id = trapped["id"].as_str().unwrap();
    assert_eq!(trapped["death"]["attempts"], 1);
    let (code, shown) = run(&host, flags, &["dead-letters", "show", id]);
    assert_eq!(code, 0);
    assert!(shown.contains("task     traps") && shown.contains("wasm `unreachable`"), "{shown}");

    assert_eq!(run(&host, flags, &["dead-letters", "drop"]).0, 64);
    for verb in ["list", "drop"] {
        let (code, said) = run(&host, flags, &["dead-letters", verb, "--queue", "no-such-queue"]);
        assert_eq!(code, 1);
        assert!(said.contains("there is no queue `no-such-queue`"), "{said}");
    }
    let (code, said) = run(&host, flags, &["dead-letters", "drop", "no-such-id"]);
    assert_eq!(code, 1);
    assert!(said.contains("no dead letter has the id `no-such-id`"), "{said}");
    let (code, said) = run(&host, flags, &["dead-letters", "drop", id]);
    assert_eq!((code, said.as_str()), (0, "1 dead letter is dropped\n"));
    let (_, said) = run(&host, flags, &["dead-letters", "requeue", "--task", "traps"]);
    assert_eq!(said, "2 dead letters are requeued\n");
    // The two requeued entries fail again. The history of each contains its first dead-lettering.
    wait_for("the requeued entries to fail again", || {
        let letters = list(&host, flags, &["--task", "traps"]);
        (letters.len() == 2 && letters.iter().all(|l| l["history"].as_array().unwrap().len() == 1))
            .then_some(())
    });
    let runs = host.runs().into_iter().filter(|run| run.task.as_str() == "traps").count();
    assert_eq!(runs, 5);
    assert_eq!(
        run(&host, flags, &["dead-letters", "drop", "--all"]),
        (0, "5 dead letters are dropped\n".to_owned())
    );
    assert_eq!(list(&host, flags, &[]).len(), 0);
    daemon.stop();
}

#[test]
fn dead_letters_of_the_embedded_queue_are_shown_requeued_and_dropped() {
    check(&[]);
}

#[test]
fn dead_letters_of_rabbitmq_are_shown_requeued_and_dropped() {
    let url = Rabbit::shared().vhost().url();
    check(&["--amqp-url", &url]);
}
