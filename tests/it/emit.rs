//! What tasks send and remember: with a run that succeeded all of it, of one that failed nothing.

use std::collections::BTreeMap;

use crate::bed::{Bed, message};

const EMIT: &str = include_str!("../../host/crates/wasm/tests/guests/emit.wat");
const STATE: &str = include_str!("../../host/crates/wasm/tests/guests/state.wat");

/// A guest that sends `count` messages to the topic and ends so.
pub(crate) fn sender(topic: &str, count: u32, body: &str) -> Vec<u8> {
    let length = topic.len().to_string();
    let wat = EMIT.replace("COUNT", &count.to_string()).replace("LENGTH", &length);
    wat::parse_str(wat.replace("TOPIC", topic).replace("BODY", body)).unwrap()
}

/// A guest that counts its runs and ends so.
fn counter(body: &str) -> Vec<u8> {
    wat::parse_str(STATE.replace("SIZE", "1").replace("BODY", body)).unwrap()
}

fn add(bed: &Bed, name: &str, component: &[u8], manifest: &str) {
    bed.write(&format!("tasks/{name}.wasm"), component);
    bed.write(&format!("tasks/{name}.toml"), manifest);
}

fn tally(expected: &[(&str, usize)]) -> BTreeMap<String, usize> {
    expected.iter().map(|&(name, count)| (name.to_owned(), count)).collect()
}

#[test]
fn a_component_decides_in_its_own_time_whether_a_playbook_runs() {
    let bed = Bed::new();
    let manifest = "topics = ['a']\ngrants.emit = ['b.*']";
    add(&bed, "decides", &sender("b.c", 1, "i32.const 0"), manifest);
    bed.add_playbook("b.c", "", "    - assert: { that: msg.n == 1 }\n");
    let daemon = bed.start(&[]);
    bed.inject(&[message("m-1", "a", "{}")]);
    crate::bed::wait_for("both runs", || (bed.runs().len() == 2).then_some(()));
    daemon.wait_until_idle();
    assert_eq!(daemon.metric("loopabull_messages_emitted_total"), Some(1.0));
    daemon.stop();
    assert_eq!(bed.tally(), tally(&[("b.c success", 1), ("decides success", 1)]));
    let runs = bed.runs();
    let [sent, got] =
        ["decides", "b.c"].map(|task| runs.iter().find(|run| run.task.as_str() == task).unwrap());
    assert_eq!(sent.grants, ["send messages to b.*"]);
    let emitted: Vec<_> = sent.emitted.iter().map(|emitted| &emitted.id).collect();
    assert_eq!(emitted, [&got.message_id]);
    assert!(sent.usage.host_calls >= 1 && sent.usage.memory >= 64 << 10, "{:?}", sent.usage);
}

#[test]
fn of_a_failed_run_nothing_is_sent_or_remembered() {
    let bed = Bed::new();
    let manifest =
        "topics = ['a']\ngrants.emit = ['b']\n[retry]\nmax_attempts = 2\npauses = ['100ms']";
    for (name, body) in
        [("rejects", "i32.const 96"), ("retries", "i32.const 128"), ("traps", "unreachable")]
    {
        add(&bed, name, &sender("b", 3, body), manifest);
    }
    add(&bed, "remembers", &counter("i32.const 96"), "topics = ['a']\ngrants.state = '1KiB'");
    bed.add_guest("b", "b", "", "i32.const 0");
    let daemon = bed.start(&[]);
    bed.inject(&[message("m-1", "a", "{}"), message("m-2", "a", "{}")]);
    daemon.wait_until_idle();
    assert_eq!(daemon.metric("loopabull_messages_emitted_total"), Some(0.0));
    daemon.stop();
    let expected =
        [("rejects reject", 2), ("remembers reject", 2), ("retries retry", 4), ("traps trap", 4)];
    assert_eq!(bed.tally(), tally(&expected));
    bed.write("m.json", message("m-3", "a", "{}"));
    let said = crate::bed::text(&bed.run(&["test", "remembers", "m.json"]).stdout);
    assert!(!said.contains("would store"), "{said}");
}

#[test]
fn what_must_not_be_sent_is_refused_with_its_reason() {
    let bed = Bed::new();
    bed.write("m.json", message("m-1", "a", "{}"));
    let check = |topic: &str, count: u32, expected: &str| {
        add(
            &bed,
            "sends",
            &sender(topic, count, "i32.const 0"),
            "topics = ['a']\ngrants.emit = ['b']",
        );
        let said = crate::bed::text(&bed.run(&["test", "sends", "m.json"]).stdout);
        assert!(said.contains(expected), "{said}");
    };
    check("b", 1, "would publish: b {\"n\":1}");
    check("c", 1, "reject: the topic `c` is not granted; add it to `emit` under `[grants]`");
    check("b/../c", 1, "reject: topic `b/../c` has the forbidden character '/'");
    check("b", 1_000_000, "limit: wanted 101 messages sent of 100 allowed");
}

#[test]
fn tasks_that_send_to_each_other_in_a_circle_come_to_an_end() {
    let bed = Bed::new();
    let manifest = "topics = ['a']\ngrants.emit = ['a']";
    add(&bed, "circle", &sender("a", 1, "i32.const 0"), manifest);
    let daemon = bed.start(&[]);
    bed.inject(&[message("m-1", "a", "{}")]);
    crate::bed::wait_for("the last one", || (daemon.depth("dead") == Some(1)).then_some(()));
    daemon.wait_until_idle();
    daemon.stop();
    assert_eq!(bed.tally(), tally(&[("circle reject", 1), ("circle success", 16)]));
}

#[test]
fn five_workers_lose_no_count() {
    let bed = Bed::new();
    let manifest = "topics = ['a']\ngrants.state = '1KiB'";
    add(&bed, "counts", &counter("i32.const 0"), manifest);
    let daemon = bed.start(&["--workers", "5"]);
    let messages: Vec<_> = (0..100).map(|n| message(&format!("m-{n}"), "a", "{}")).collect();
    bed.inject(&messages);
    daemon.wait_until_idle();
    daemon.stop();
    let tally = bed.tally();
    assert_eq!(tally.get("counts success"), Some(&100), "{tally:?}");
    // Overtaken runs are no attempts and no failures, however many there were.
    assert!(
        tally.keys().all(|key| key == "counts success" || key == "counts conflict"),
        "{tally:?}"
    );
    bed.write("m.json", message("m-x", "a", "{}"));
    let said = crate::bed::text(&bed.run(&["test", "counts", "m.json"]).stdout);
    assert!(said.contains("would store: n = e\n"), "101 is an `e`: {said}");
}

#[test]
fn a_task_remembers_no_more_than_it_was_granted() {
    let bed = Bed::new();
    let large =
        wat::parse_str(STATE.replace("SIZE", "2000").replace("BODY", "i32.const 0")).unwrap();
    add(&bed, "large", &large, "topics = ['a']\ngrants.state = '1KiB'");
    bed.write("m.json", message("m-1", "a", "{}"));
    let said = crate::bed::text(&bed.run(&["test", "large", "m.json"]).stdout);
    assert!(said.contains("limit: wanted 2001 bytes of state of 1024 allowed"), "{said}");
}
