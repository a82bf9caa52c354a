//! Messages that tasks emit, and the state of tasks. If a run succeeds, all its messages are published and
//! all its state changes are stored. If it fails, nothing is published or stored.

use std::collections::BTreeMap;

use crate::test_host::{TestHost, message};

const EMIT: &str = include_str!("../../host/crates/wasm/tests/guests/emit.wat");
const STATE: &str = include_str!("../../host/crates/wasm/tests/guests/state.wat");

/// Returns a guest that publishes `count` messages to the topic and ends with `body`.
pub(crate) fn sender(topic: &str, count: u32, body: &str) -> Vec<u8> {
    let length = topic.len().to_string();
    let wat = EMIT.replace("COUNT", &count.to_string()).replace("LENGTH", &length);
    wat::parse_str(wat.replace("TOPIC", topic).replace("BODY", body)).unwrap()
}

/// Returns a guest that counts its runs and ends with `body`.
fn counter(body: &str) -> Vec<u8> {
    wat::parse_str(STATE.replace("SIZE", "1").replace("BODY", body)).unwrap()
}

fn add(host: &TestHost, name: &str, component: &[u8], manifest: &str) {
    host.write(&format!("tasks/{name}.wasm"), component);
    host.write(&format!("tasks/{name}.toml"), manifest);
}

fn tally(expected: &[(&str, usize)]) -> BTreeMap<String, usize> {
    expected.iter().map(|&(name, count)| (name.to_owned(), count)).collect()
}

#[test]
fn a_component_starts_a_playbook_by_publishing_a_message() {
    let host = TestHost::new();
    let manifest = "topics = ['a']\ngrants.emit = ['b.*']";
    add(&host, "decides", &sender("b.c", 1, "i32.const 0"), manifest);
    host.add_playbook("b.c", "", "    - assert: { that: msg.n == 1 }\n");
    let daemon = host.start(&[]);
    host.inject(&[message("m-1", "a", "{}")]);
    crate::test_host::wait_for("both runs", || (host.runs().len() == 2).then_some(()));
    daemon.wait_until_idle();
    assert_eq!(daemon.metric("loopabull_messages_emitted_total"), Some(1.0));
    daemon.stop();
    assert_eq!(host.tally(), tally(&[("b.c success", 1), ("decides success", 1)]));
    let runs = host.runs();
    let [sent, got] =
        ["decides", "b.c"].map(|task| runs.iter().find(|run| run.task.as_str() == task).unwrap());
    assert_eq!(sent.grants, ["send messages to b.*"]);
    let emitted: Vec<_> = sent.emitted.iter().map(|emitted| &emitted.id).collect();
    assert_eq!(emitted, [&got.message_id]);
    assert!(sent.usage.host_calls >= 1 && sent.usage.memory >= 64 << 10, "{:?}", sent.usage);
}

#[test]
fn a_failed_run_publishes_and_stores_nothing() {
    let host = TestHost::new();
    let manifest =
        "topics = ['a']\ngrants.emit = ['b']\n[retry]\nmax_attempts = 2\npauses = ['100ms']";
    for (name, body) in
        [("rejects", "i32.const 96"), ("retries", "i32.const 128"), ("traps", "unreachable")]
    {
        add(&host, name, &sender("b", 3, body), manifest);
    }
    add(&host, "remembers", &counter("i32.const 96"), "topics = ['a']\ngrants.state = '1KiB'");
    host.add_guest("b", "b", "", "i32.const 0");
    let daemon = host.start(&[]);
    host.inject(&[message("m-1", "a", "{}"), message("m-2", "a", "{}")]);
    daemon.wait_until_idle();
    assert_eq!(daemon.metric("loopabull_messages_emitted_total"), Some(0.0));
    daemon.stop();
    let expected =
        [("rejects reject", 2), ("remembers reject", 2), ("retries retry", 4), ("traps trap", 4)];
    assert_eq!(host.tally(), tally(&expected));
    host.write("m.json", message("m-3", "a", "{}"));
    let said = crate::test_host::text(&host.run(&["test", "remembers", "m.json"]).stdout);
    assert!(!said.contains("would store"), "{said}");
}

#[test]
fn a_forbidden_message_is_refused_with_a_reason() {
    let host = TestHost::new();
    host.write("m.json", message("m-1", "a", "{}"));
    let check = |topic: &str, count: u32, expected: &str| {
        add(
            &host,
            "sends",
            &sender(topic, count, "i32.const 0"),
            "topics = ['a']\ngrants.emit = ['b']",
        );
        let said = crate::test_host::text(&host.run(&["test", "sends", "m.json"]).stdout);
        assert!(said.contains(expected), "{said}");
    };
    check("b", 1, "would publish: b {\"n\":1}");
    check("c", 1, "reject: the topic `c` is not granted; add it to `emit` under `[grants]`");
    check("b/../c", 1, "reject: topic `b/../c` has the forbidden character '/'");
    check("b", 1_000_000, "limit: 101 messages sent, at most 100 allowed");
}

#[test]
fn a_task_that_publishes_to_itself_is_stopped() {
    let host = TestHost::new();
    let manifest = "topics = ['a']\ngrants.emit = ['a']";
    add(&host, "circle", &sender("a", 1, "i32.const 0"), manifest);
    let daemon = host.start(&[]);
    host.inject(&[message("m-1", "a", "{}")]);
    crate::test_host::wait_for("the rejection", || (daemon.depth("dead") == Some(1)).then_some(()));
    daemon.wait_until_idle();
    daemon.stop();
    assert_eq!(host.tally(), tally(&[("circle reject", 1), ("circle success", 16)]));
}

#[test]
fn five_workers_with_one_counter_lose_no_update() {
    let host = TestHost::new();
    let manifest = "topics = ['a']\ngrants.state = '1KiB'";
    add(&host, "counts", &counter("i32.const 0"), manifest);
    let daemon = host.start(&["--workers", "5"]);
    let messages: Vec<_> = (0..100).map(|n| message(&format!("m-{n}"), "a", "{}")).collect();
    host.inject(&messages);
    daemon.wait_until_idle();
    daemon.stop();
    let tally = host.tally();
    assert_eq!(tally.get("counts success"), Some(&100), "{tally:?}");
    // A run whose state changes conflict with another run is repeated and does not count as a failure.
    assert!(
        tally.keys().all(|key| key == "counts success" || key == "counts conflict"),
        "{tally:?}"
    );
    host.write("m.json", message("m-x", "a", "{}"));
    let said = crate::test_host::text(&host.run(&["test", "counts", "m.json"]).stdout);
    assert!(said.contains("would store: n = e\n"), "the count 101 is the byte `e`: {said}");
}

#[test]
fn a_task_cannot_store_more_state_than_it_was_granted() {
    let host = TestHost::new();
    let large =
        wat::parse_str(STATE.replace("SIZE", "2000").replace("BODY", "i32.const 0")).unwrap();
    add(&host, "large", &large, "topics = ['a']\ngrants.state = '1KiB'");
    host.write("m.json", message("m-1", "a", "{}"));
    let said = crate::test_host::text(&host.run(&["test", "large", "m.json"]).stdout);
    assert!(said.contains("limit: 2001 bytes of state, at most 1024 allowed"), "{said}");
}
