//! Dead letters by command: shown, requeued, dropped, by id and by filter.

use loopabull_testbed::Rabbit;
use serde_json::Value;

use crate::bed::{Bed, message, text, wait_for};

/// A task that rejects, one that fails at once, and one that works.
fn bed() -> Bed {
    let bed = Bed::new();
    bed.add_guest("rejects", "a.one", "", "i32.const 96");
    bed.add_guest("traps", "a.two", "[retry]\non_failure = 'dead-letter'", "unreachable");
    bed.add_guest("works", "b", "", "i32.const 0");
    bed
}

fn run(bed: &Bed, flags: &[&str], arguments: &[&str]) -> (i32, String) {
    let output = bed.run(&[arguments, flags].concat());
    let all = format!("{}{}", text(&output.stdout), text(&output.stderr));
    (output.status.code().unwrap(), all)
}

fn list(bed: &Bed, flags: &[&str], filter: &[&str]) -> Vec<Value> {
    let arguments = [&["dead-letters", "list", "--json"], filter].concat();
    let (code, text) = run(bed, flags, &arguments);
    assert_eq!(code, 0, "{text}");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn check(flags: &[&str]) {
    let bed = bed();
    let daemon = bed.start(flags);
    let messages: Vec<String> = (0..3)
        .flat_map(|n| {
            ["a.one", "a.two", "b"].map(|topic| message(&format!("{topic}-{n}"), topic, "{}"))
        })
        .collect();
    bed.run_with_input(&[&["inject", "-"], flags].concat(), &messages.join("\n"));
    wait_for("the dead letters", || (daemon.depth("dead") == Some(6)).then_some(()));
    daemon.wait_until_idle();

    assert_eq!(list(&bed, flags, &[]).len(), 6);
    for (filter, count) in [
        (vec!["--task", "traps"], 3),
        (vec!["--topic", "a.*"], 6),
        (vec!["--topic", "*.two"], 3),
        (vec!["--reason", "reject: no good"], 3),
        (vec!["--reason", "nothing of the kind"], 0),
        (vec!["--older-than", "1h"], 0),
        (vec!["--older-than", "0s", "--task", "rejects"], 3),
        (vec!["--queue", "workers"], 6),
        (vec!["--queue", "no-such-queue"], 0),
    ] {
        assert_eq!(list(&bed, flags, &filter).len(), count, "{filter:?}");
    }
    let trapped = &list(&bed, flags, &["--task", "traps"])[0];
    let id = trapped["id"].as_str().unwrap();
    assert_eq!(trapped["burial"]["attempts"], 1);
    let (code, shown) = run(&bed, flags, &["dead-letters", "show", id]);
    assert_eq!(code, 0);
    assert!(shown.contains("task     traps") && shown.contains("wasm `unreachable`"), "{shown}");

    assert_eq!(run(&bed, flags, &["dead-letters", "drop"]).0, 64);
    let (code, said) = run(&bed, flags, &["dead-letters", "drop", "no-such-id"]);
    assert_eq!(code, 1);
    assert!(said.contains("no dead letter has the id `no-such-id`"), "{said}");
    let (code, said) = run(&bed, flags, &["dead-letters", "drop", id]);
    assert_eq!((code, said.as_str()), (0, "1 dropped\n"));
    let (_, said) = run(&bed, flags, &["dead-letters", "requeue", "--task", "traps"]);
    assert_eq!(said, "2 requeued\n");
    // They fail again, as another life, and remember the first.
    wait_for("them to fail again", || {
        let letters = list(&bed, flags, &["--task", "traps"]);
        (letters.len() == 2 && letters.iter().all(|l| l["history"].as_array().unwrap().len() == 1))
            .then_some(())
    });
    let runs = bed.runs().into_iter().filter(|run| run.task.as_str() == "traps").count();
    assert_eq!(runs, 5);
    assert_eq!(run(&bed, flags, &["dead-letters", "drop", "--all"]), (0, "5 dropped\n".to_owned()));
    assert_eq!(list(&bed, flags, &[]).len(), 0);
    daemon.stop();
}

#[test]
fn dead_letters_of_the_embedded_queue() {
    check(&[]);
}

#[test]
fn dead_letters_of_rabbitmq() {
    let url = Rabbit::shared().vhost().url();
    check(&["--amqp-url", &url]);
}
