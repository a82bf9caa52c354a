//! `explain` and the page of messages say why a message ran, or why nothing did.

use crate::test_host::{Daemon, Publisher, TestHost, message, text, wait_for};

const BUILT: &str = "org.example.prod.build.done";

/// A daemon with its publisher, and four tasks: one that succeeds, one that fails, one that is paused, and one whose pattern
/// is nearly right.
struct Site {
    host: TestHost,
    daemon: Daemon,
    publisher: Publisher,
}

impl Site {
    fn new() -> Self {
        let host = TestHost::new();
        host.add_guest("good", BUILT, "", "i32.const 0");
        host.add_guest("bad", "org.example.prod.bad", "[retry]\nmax_attempts = 1", "unreachable");
        host.add_guest("later", "org.example.prod.later.#", "", "i32.const 0");
        host.add_guest("nearly", "org.example.prod.thing.create", "", "i32.const 0");
        let pause = ["pause", "--task", "later", "--reason", "until Monday"];
        assert!(host.run(&pause).status.success());
        let publisher = Publisher::start();
        let daemon = host.start(&["--workers", "1", "--unsigned", "--fedmsg", &publisher.endpoint]);
        publisher.wait_for_subscriber();
        Self { host, daemon, publisher }
    }

    /// Publishes a message whose body names the topic `inner`.
    fn publish(&self, id: &str, topic: &str, inner: &str) {
        self.publisher.send(&[topic.as_bytes(), message(id, inner, "{}").as_bytes()]);
    }

    /// Waits until the explanation contains each of the texts, and returns it.
    fn check(&self, about: &str, expected: &[&str]) {
        wait_for(&format!("`{about}` to be explained by {expected:?}"), || {
            let said = explain(&self.host, about);
            expected.iter().all(|text| said.contains(text)).then_some(())
        });
        let (status, page) = self.daemon.get(&format!("/messages?about={about}"));
        assert_eq!(status, 200);
        let escaped =
            |text: &str| text.replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
        for text in expected {
            assert!(page.contains(&escaped(text)), "the page does not say `{text}`: {page}");
        }
    }
}

fn explain(host: &TestHost, about: &str) -> String {
    let output = host.run(&["explain", about]);
    assert!(output.status.success(), "{output:?}");
    text(&output.stdout)
}

#[test]
fn every_fate_of_a_message_is_explained() {
    let site = Site::new();
    site.publish("m-good", BUILT, BUILT);
    site.check(
        "m-good",
        &[
            "It arrived from fedmsg at ",
            &format!("on topic `{BUILT}` and was accepted for `good`."),
            "Task `good` ran it at ",
            "attempt 1: success.",
        ],
    );
    site.publish("m-good", BUILT, BUILT);
    site.check("m-good", &["It is a duplicate for `good`, which had it already."]);

    site.publish("m-none", "org.example.prod.thing.created", "org.example.prod.thing.created");
    site.check("m-none", &[
        "No task wanted that topic, so nothing ran.",
        "The pattern `org.example.prod.thing.create` of task `nearly` nearly matches: word 5 of the topic is `created`, where the pattern has `create`.",
    ]);
    site.publish("m-forged", BUILT, "org.example.prod.other");
    site.check("m-forged", &["and was rejected: ", "topic"]);

    site.publish("m-later", "org.example.prod.later", "org.example.prod.later");
    site.check(
        "m-later",
        &[
            "was accepted for `later`.",
            "For task `later` it is held in queue `workers`.",
            "Task `later` is paused by the operator since ",
            ": until Monday.",
        ],
    );
    site.publish("m-bad", "org.example.prod.bad", "org.example.prod.bad");
    site.check(
        "m-bad",
        &[
            "It arrived from fedmsg at ",
            "attempt 1: trap: ",
            "For task `bad` it is a dead letter of queue `workers`: trap: ",
        ],
    );

    // A dead letter that was requeued has another id in the queue, and is found nevertheless.
    let pause = ["pause", "--task", "bad", "--reason", "later"];
    assert!(site.host.run(&pause).status.success());
    wait_for("the pause", || (!site.daemon.status()["pauses"][1].is_null()).then_some(()));
    assert!(site.host.run(&["dead-letters", "requeue", "--all"]).status.success());
    site.check(
        "m-bad",
        &["For task `bad` it is held in queue `workers`.", "Task `bad` is paused by the operator"],
    );
    assert!(site.host.run(&["resume", "--task", "bad"]).status.success());
    site.check("m-bad", &["For task `bad` it is a dead letter of queue `workers`"]);
    assert!(site.host.run(&["dead-letters", "drop", "--all"]).status.success());
    site.check("m-bad", &["For task `bad` it is in no queue of this host any more"]);

    site.check(
        "m-unknown",
        &["Nothing is known of a message with the id `m-unknown`.", "Arrivals are noted since "],
    );
    site.check(
        BUILT,
        &[
            &format!("Task `good` wants topic `{BUILT}`, by its pattern `{BUILT}`."),
            "3 messages on this topic arrived, the last one at ",
        ],
    );
    site.check(
        "org.example.prod.build",
        &[
            "No task wants topic `org.example.prod.build` now.",
            "the topic has nothing for the word `done` of the pattern.",
            "No arrival on this topic is noted.",
        ],
    );

    let arrivals = |flags: &[&str]| {
        text(&site.host.run(&[&["messages", "--limit", "50"], flags].concat()).stdout)
    };
    let all = arrivals(&[]);
    for end in ["accepted for good", "duplicate for good", "no task wants it", "accepted for later"]
    {
        assert!(all.lines().any(|line| line.trim_end().ends_with(end)), "{end}: {all}");
    }
    assert!(all.contains("rejected: "), "{all}");
    assert_eq!(arrivals(&["--message", "m-good", "--json"]).lines().count(), 2);
    assert_eq!(arrivals(&["--topic", "org.example.prod.later"]).lines().count(), 2);
    let failures = text(&site.host.run(&["failures"]).stdout);
    assert!(failures.lines().nth(1).unwrap().starts_with("2     bad   "), "{failures}");
    let group = text(&site.host.run(&["failures", "--json"]).stdout);
    let group: serde_json::Value = serde_json::from_str(&group).unwrap();
    assert_eq!((&group["count"], &group["task"]), (&2.into(), &"bad".into()));
    let (_, page) = site.daemon.get("/messages");
    for text in
        ["m-good", "m-none", "m-forged", "no task wants it", "duplicate for good", "rejected"]
    {
        assert!(page.contains(text), "{text}: {page}");
    }
    // Without a daemon, the same is said from its files.
    let said = ["m-good", "m-none", "m-later", "m-bad"].map(|id| explain(&site.host, id));
    site.daemon.stop();
    let again = ["m-good", "m-none", "m-later", "m-bad"].map(|id| explain(&site.host, id));
    assert_eq!(again, said);
}

/// Messages that wait behind others, and behind a paused queue.
#[test]
fn a_message_that_waits_is_found_in_its_queue() {
    let site = Site::new();
    let pause = ["pause", "--queue", "workers", "--reason", "upgrade"];
    assert!(site.host.run(&pause).status.success());
    wait_for("the pause", || (!site.daemon.status()["pauses"][1].is_null()).then_some(()));
    for number in 0..3 {
        site.publish(&format!("m-{number}"), BUILT, BUILT);
    }
    site.check("m-0", &["For task `good` it waits in queue `workers`, and is next."]);
    site.check("m-1", &["behind 1 other."]);
    site.check(
        "m-2",
        &["behind 2 others.", "Queue `workers` is paused by the operator since ", ": upgrade."],
    );
    assert!(site.host.run(&["resume", "--queue", "workers"]).status.success());
    site.check("m-2", &["attempt 1: success."]);
    let json = site.host.run(&["explain", "--json", "m-2"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let sentences = json["sentences"].as_array().unwrap();
    assert_eq!(sentences.len(), 2, "{json}");
    let run = site.host.runs().into_iter().find(|run| run.message_id.as_str() == "m-2").unwrap();
    assert_eq!(sentences[1]["run"], run.id.as_str());
    site.daemon.stop();
}

/// The number of notes is limited, and they can be switched off.
#[test]
fn notes_of_arrivals_are_limited() {
    for (keep, expected) in [("2", vec!["m-3", "m-2"]), ("0", vec![])] {
        let host = TestHost::new();
        host.add_guest("good", BUILT, "", "i32.const 0");
        host.write("loopabull.toml", format!("[arrivals]\nkeep = {keep}\n"));
        let publisher = Publisher::start();
        let daemon = host.start(&[
            "--config",
            "loopabull.toml",
            "--unsigned",
            "--fedmsg",
            &publisher.endpoint,
        ]);
        publisher.wait_for_subscriber();
        for number in 0..4 {
            let id = format!("m-{number}");
            publisher.send(&[BUILT.as_bytes(), message(&id, BUILT, "{}").as_bytes()]);
        }
        wait_for("the runs", || (host.runs().len() == 4).then_some(()));
        let listed = || {
            let (_, page) = daemon.get("/messages");
            let ids = ["m-3", "m-2", "m-1", "m-0"].into_iter();
            ids.filter(|id| page.contains(&format!("about={id}"))).collect::<Vec<_>>()
        };
        wait_for("the notes", || (listed() == expected).then_some(()));
        daemon.stop();
        let said = explain(&host, "m-0");
        assert!(said.starts_with("Task `good` ran it at "), "{said}");
    }
}
